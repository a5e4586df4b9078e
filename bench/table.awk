# table.awk -- the `bench` lines of a run as a table for people.

function parse(    i, eq) {
    split("", v)
    for (i = 2; i <= NF; i++) {
        eq = index($i, "=")
        if (eq > 0) v[substr($i, 1, eq - 1)] = substr($i, eq + 1)
    }
}
function or_dash(x, format) { return x == "" ? "-" : sprintf(format, x) }

$1 == "bench" {
    parse()
    if (v["case"] == "idle") { idle[++idles] = $0; next }
    if (v["case"] == "get_idle") { beside[++besides] = $0; next }
    if (v["case"] != "get" && v["case"] != "pipelined" && v["case"] != "post") next
    if (!titled++)
        printf "\n%-10s %-14s %9s  %-22s %6s %6s %6s %6s %9s %11s\n", "case", "server", "CPU us", \
            "of the floor", "recv", "send", "wait", "other", "instr", "requests/s"
    if (v["case"] != last && last != "") print ""
    last = v["case"]
    range = v["ratio"] == "" ? "-" : \
        sprintf("%.2f (%.2f .. %.2f)", v["ratio"], v["ratio_low"], v["ratio_high"])
    printf "%-10s %-14s %9.2f  %-22s %6s %6s %6s %6s %9s %11.0f\n", v["case"], v["server"], \
        v["cpu_us"], range, or_dash(v["recv"], "%.2f"), or_dash(v["send"], "%.2f"), \
        or_dash(v["wait"], "%.2f"), or_dash(v["other"], "%.2f"), \
        or_dash(v["instructions"], "%d"), v["requests_per_s"]
}

END {
    if (titled) print "(CPU us, system calls and instructions: of the server process, per request)"
    for (i = 1; i <= idles; i++) {
        $0 = idle[i]
        parse()
        if (i == 1)
            printf "\n%-25s %12s %16s %14s\n", \
                "idle connections", "held", "live bytes each", "RSS each"
        printf "%-25s %12d %16s %14s\n", v["server"], v["connections"], \
            or_dash(v["live_bytes"], "%d"), or_dash(v["rss_bytes"], "%d")
    }
    for (i = 1; i <= besides; i++) {
        $0 = beside[i]
        parse()
        if (i == 1) print ""
        printf "%s, 64 active beside %d idle: %.2f us, without %.2f us", \
            v["server"], v["connections"], v["cpu_us"], v["cpu_us_alone"]
        printf ", ratio %.2f (%.2f .. %.2f)\n", v["ratio"], v["ratio_low"], v["ratio_high"]
    }
}

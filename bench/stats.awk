# stats.awk -- from raw measurements to one line per case and server.
#
# Reads lines of key=value words that begin with
#   raw    case server pair cpu_ns requests seconds
#   calls  case server recv send wait other requests
#   instr  case server instructions requests
# and prints `bench` lines. A ratio is taken within a pair, against the floor of the same pair;
# printed are the median of the pairs' ratios, the lowest and the highest.

function parse(    i, eq) {
    split("", v)
    for (i = 2; i <= NF; i++) {
        eq = index($i, "=")
        if (eq > 0) v[substr($i, 1, eq - 1)] = substr($i, eq + 1)
    }
    key = v["case"] SUBSEP v["server"]
}

# Sorts list[1..n] and leaves low, middle and high in the globals of these names.
function spread(list, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = list[i]
        for (j = i - 1; j >= 1 && list[j] > x; j--) list[j + 1] = list[j]
        list[j + 1] = x
    }
    low = list[1]
    high = list[n]
    middle = n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

$1 == "raw" {
    parse()
    if (!(key in pairs)) { order[++keys] = key; name[key] = v["server"]; kind[key] = v["case"] }
    pairs[key]++
    at[key, pairs[key]] = v["pair"]
    cost[key, v["pair"]] = v["cpu_ns"] / v["requests"] / 1000
    rate[key, pairs[key]] = v["requests"] / v["seconds"]
}
$1 == "calls" {
    parse()
    per = v["requests"]
    calls[key] = sprintf(" recv=%.3f send=%.3f wait=%.3f other=%.3f", \
        v["recv"] / per, v["send"] / per, v["wait"] / per, v["other"] / per)
}
$1 == "instr" {
    parse()
    instr[key] = sprintf(" instructions=%.0f", v["instructions"] / v["requests"])
}

END {
    for (k = 1; k <= keys; k++) {
        key = order[k]
        n = 0; m = 0
        split("", us); split("", ratio); split("", persec)
        for (i = 1; i <= pairs[key]; i++) {
            p = at[key, i]
            us[++n] = cost[key, p]
            persec[n] = rate[key, i]
            base = kind[key] SUBSEP "floor" SUBSEP p
            if (base in cost && cost[base] > 0) ratio[++m] = cost[key, p] / cost[base]
        }
        spread(us, n)
        line = sprintf("bench case=%s server=%s cpu_us=%.3f cpu_us_low=%.3f cpu_us_high=%.3f", \
            kind[key], name[key], middle, low, high)
        if (m > 0) {
            spread(ratio, m)
            line = line sprintf(" ratio=%.3f ratio_low=%.3f ratio_high=%.3f", middle, low, high)
        }
        spread(persec, n)
        print line sprintf(" requests_per_s=%.0f pairs=%d", middle, n) calls[key] instr[key]
    }
}

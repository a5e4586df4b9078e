# chart.awk -- one bar chart as SVG.
#
# Variables: title, note (below the title), mark (a value that gets a vertical line; optional).
# Reads `label value [low high]` and draws one bar per line; netkit's bar is the coloured one.

function text(x, y, size, anchor, colour, s) {
    gsub(/&/, "\\&amp;", s)
    gsub(/</, "\\&lt;", s)
    printf "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" text-anchor=\"%s\" fill=\"%s\">", \
        x, y, size, anchor, colour
    print s "</text>"
}
function line(x1, y1, x2, y2, style) {
    printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style
}
function number(x) { return sprintf(x >= 100 || (x == int(x) && mark == "") ? "%d" : "%.2f", x) }

NF >= 2 {
    n++
    label[n] = $1
    value[n] = $2
    low[n] = NF >= 4 ? $3 : ""
    high[n] = NF >= 4 ? $4 : ""
    top = $2 > top ? $2 : top
    if (NF >= 4 && $4 > top) top = $4
}

END {
    left = 120; width = 430; row = 32; head = 66
    if (top <= 0) top = 1
    height = head + n * row + 22
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"%d\" " \
        "viewBox=\"0 0 720 %d\" font-family=\"sans-serif\">\n", height, height
    print "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    text(20, 28, 18, "start", "#1b1f24", title)
    text(20, 48, 12, "start", "#57606a", note)
    for (i = 1; i <= n; i++) {
        y = head + (i - 1) * row
        mid = y + row / 2 - 3
        end = left + value[i] / top * width
        printf "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", \
            left, y, end - left, row - 10, label[i] == "netkit" ? "#1a7f64" : "#c3cad3"
        text(left - 8, mid + 5, 14, "end", "#1b1f24", label[i])
        if (low[i] != "") {
            line(left + low[i] / top * width, mid, left + high[i] / top * width, mid, \
                "stroke=\"#1b1f24\" stroke-width=\"2\"")
            if (left + high[i] / top * width > end) end = left + high[i] / top * width
        }
        shown = number(value[i])
        if (low[i] != "") shown = shown " (" number(low[i]) " .. " number(high[i]) ")"
        text(end + 8, mid + 5, 12, "start", "#1b1f24", shown)
    }
    if (mark > 0) {
        x = left + mark / top * width
        line(x, head - 6, x, head + n * row, "stroke=\"#b35900\" stroke-dasharray=\"4 3\"")
        text(x, head + n * row + 14, 11, "middle", "#b35900", number(mark))
    }
    print "</svg>"
}

package main

import (
	"bytes"
	"fmt"
	"html"

	"github.com/egressip-operator/egressip-operator/test/bench/figures"
)

// Sizes of a plot, in pixels.
const (
	plotWidth  = 760
	labelWidth = 300
	rowHeight  = 18
	titleSpace = 26
	// widest is the greatest ratio that a plot has room for.
	widest = 1.5
)

const style = `<style>
text { font: 12px sans-serif; fill: #222 } .name { font-weight: bold } .bar { fill: #3867b1 } .spread { stroke: #222; stroke-width: 1.5 } .one { stroke: #b03a2e; stroke-dasharray: 4 3 } .back { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .bar { fill: #7fa6e6 } .spread { stroke: #ddd } .one { stroke: #e5786d } .back { fill: #1b1b1b } }
</style>`

// plot draws the ratios of a report: a bar for each, a line from quartile to quartile, and a dashed
// line at 1.
func plot(r figures.Report, title string) []byte {
	x := func(ratio float64) float64 {
		return labelWidth + min(ratio, widest)/widest*(plotWidth-labelWidth-20)
	}
	var rows bytes.Buffer
	y := titleSpace + 14
	for _, s := range r.Series {
		if len(s.Ratios) == 0 {
			continue
		}
		fmt.Fprintf(&rows, "<text class=\"name\" x=\"8\" y=\"%d\">%s</text>\n", y+12, html.EscapeString(s.Name))
		y += rowHeight + 2
		for _, ratio := range s.Ratios {
			fmt.Fprintf(&rows, "<text x=\"20\" y=\"%d\">%s: %.2f</text>\n", y+12, html.EscapeString(ratio.Way), ratio.Median)
			fmt.Fprintf(&rows, "<rect class=\"bar\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", labelWidth, y+2, x(ratio.Median)-labelWidth, rowHeight-6)
			fmt.Fprintf(&rows, "<line class=\"spread\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x(ratio.Low), x(ratio.High), y+8, y+8)
			y += rowHeight
		}
		y += 6
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" role=\"img\" aria-labelledby=\"t\">\n<title id=\"t\">%s</title>\n%s\n", plotWidth, y+10, html.EscapeString(title), style)
	fmt.Fprintf(&b, "<rect class=\"back\" width=\"%d\" height=\"%d\"/>\n<text class=\"name\" x=\"8\" y=\"18\">%s</text>\n", plotWidth, y+10, html.EscapeString(title))
	fmt.Fprintf(&b, "<line class=\"one\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n<text x=\"%.1f\" y=\"18\">1.00</text>\n", x(1), x(1), titleSpace, y, x(1)-12)
	b.Write(rows.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

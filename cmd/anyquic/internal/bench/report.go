package bench

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// Print writes figures as a table for people.
func Print(w io.Writer, figures []Figure) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	var scenario string
	for i, f := range figures {
		if f.Scenario != scenario {
			if i > 0 {
				fmt.Fprintln(tw)
			}
			scenario = f.Scenario
			fmt.Fprintf(tw, "%s\ttarget\tmedian\tmin\tmax\tratio\t\n", scenario)
		}
		ratio := ""
		if f.Ratio != 0 {
			ratio = strconv.FormatFloat(f.Ratio, 'f', 2, 64)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s %s\t%s\t%s\t%s\t\n", f.Metric, f.Target, number(f.Median), f.Unit, number(f.Min), number(f.Max), ratio)
	}
	return tw.Flush()
}

// number prints three digits that matter, or all of the integer part.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100 || a == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newClients() *cobra.Command {
	var at, id, kick string
	var slow, asJSON bool
	limit := 100
	cmd := &cobra.Command{
		Use:   "clients",
		Short: "List the clients of a broker on this machine, or disconnect one",
		Long: `List the clients of a broker on this machine, or disconnect one: of an anyquic serve
whose --metrics is at --at. Slow clients come first, those who have been so the
longest before others: their queue was full and is not yet half empty. Then come
those for whom most is waiting.`,
		Example: `  anyquic mqtt clients --slow
  anyquic mqtt clients --client sensor-7 --json
  anyquic mqtt clients --kick sensor-7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kick != "" {
				body, err := json.Marshal(kickRequest{kick})
				if err != nil {
					return err
				}
				_, err = askAdmin(cmd.Context(), http.MethodPost, at, kickPath, nil, body)
				return err
			}
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if slow {
				query.Set("slow", "1")
			}
			if id != "" {
				query.Set("client", id)
			}
			answer, err := askAdmin(cmd.Context(), http.MethodGet, at, clientsPath, query, nil)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = cmd.OutOrStdout().Write(answer)
				return err
			}
			var list clientList
			if err := json.Unmarshal(answer, &list); err != nil {
				return fmt.Errorf("what %s answers is no list of clients: %w", at, err)
			}
			return printClients(cmd.OutOrStdout(), &list)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&at, "at", defaults().Listen.Metrics, "where the broker has its --metrics, HOST:PORT")
	fs.BoolVar(&slow, "slow", false, "list only slow clients")
	fs.StringVar(&id, "client", "", "list only the client with this identifier")
	fs.IntVar(&limit, "limit", limit, "list at most so many")
	fs.BoolVar(&asJSON, "json", false, "print the list as JSON")
	fs.StringVar(&kick, "kick", "", "disconnect the client with this identifier (DISCONNECT 0x98)")
	return cmd
}

// adminTimeout bounds a request to the metrics listener.
const adminTimeout = 30 * time.Second

// askAdmin asks the metrics listener at an address and returns what it answers.
func askAdmin(ctx context.Context, method, at, path string, query url.Values, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	u := url.URL{Scheme: "http", Host: at, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("--at %q: %w", at, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is on this machine
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no broker with its --metrics at %s answers: %w", at, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(answer)))
	}
	return answer, nil
}

func printClients(w io.Writer, list *clientList) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CLIENT\tCARRIER\tREMOTE\tRTT\tSLOW FOR\tQUEUE BYTES\tQUEUED\tINFLIGHT\tDROPPED")
	for i := range list.Clients {
		c := &list.Clients[i]
		carrier, remote, slow, rtt := string(c.Carrier), c.Remote, "-", "-"
		if !c.Connected {
			carrier, remote = "offline", "-"
		}
		if c.RTT > 0 {
			rtt = c.RTT.Round(10 * time.Microsecond).String()
		}
		if c.Slow > 0 {
			slow = c.Slow.Round(time.Millisecond).String()
			if c.Stalled {
				slow += ", takes nothing"
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", printable(c.ClientID), carrier, remote, rtt, slow, c.QueueBytes, c.Queued, c.Inflight, c.Dropped)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if n := list.Found - len(list.Clients); n > 0 {
		_, err := fmt.Fprintf(w, "and %d more: --limit shows them\n", n)
		return err
	}
	return nil
}

// printable returns s, which a client has chosen, so that it does nothing to a
// terminal.
func printable(s string) string {
	if q := strconv.QuoteToGraphic(s); q != `"`+s+`"` {
		return q
	}
	return s
}

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
)

// TestHistory: what it prints byte for byte.
func TestHistory(t *testing.T) {
	fleet, addr := serve(t)
	fleet.Put(apitest.Twin("pump-1", 45))
	span := []string{
		"--start", apitest.Epoch().Format(time.RFC3339), "--end", apitest.Epoch().Add(time.Minute).Format(time.RFC3339), "--addr", addr,
	}
	for name, args := range map[string][]string{
		"history":         {"twin", "history", "pump-1", "temperature", "--limit", "12"},
		"history-buckets": {"twin", "history", "pump-1", "temperature", "--interval", "5s"},
		"history-none":    {"twin", "history", "pump-1", "nothing"},
	} {
		for _, format := range []string{"table", "wide", "json", "yaml"} {
			t.Run(name+"."+format, func(t *testing.T) {
				got := doppel(t.Context(), nil, append(append(args, span...), "-o", format)...)
				if got.code != 0 {
					t.Fatalf("exit code %d, %v", got.code, got.err)
				}
				if cut := "the first 12; --limit 0 shows all\n"; (got.stderr == cut) != (name == "history") {
					t.Errorf("it says %q", got.stderr)
				}
				golden(t, name+"."+format, got.stdout)
			})
		}
	}
}

// TestHistoryUsage: spans that mean nothing, and who is not there.
func TestHistoryUsage(t *testing.T) {
	fleet, addr := serve(t)
	fleet.Put(apitest.Twin("a", 9))
	fleet.Retain(apitest.Epoch())
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"a", "temperature", "--since", "2h"}, 0, "the log begins at 2026-11-22T10:00:00Z"},
		{[]string{"a", "temperature", "--interval", "1m"}, 0, "the log begins"},
		{[]string{"a"}, 2, "want [ID METRIC]"},
		{[]string{"a", "temperature", "--since", "2h", "--start", "3h"}, 2, "give one of them"},
		{[]string{"a", "temperature", "--since", "-2h"}, 2, "--since"},
		{[]string{"a", "temperature", "--start", "yesterday"}, 2, `--start: "yesterday" is neither`},
		{[]string{"a", "temperature", "--end", "soon"}, 2, `--end: "soon" is neither`},
		{[]string{"a", "temperature", "--interval", "-1s"}, 2, "--interval"},
		{[]string{"a", "temperature", "--interval", "1us"}, 2, "interval: "},
		{[]string{"a", "temperature", "--limit", "-1"}, 2, "--limit"},
		{[]string{"a", "no metric"}, 2, "metric: "},
		{[]string{"nobody", "temperature"}, 3, "no such device"},
		{[]string{"a", "temperature", "--addr", "127.0.0.1:1"}, 4, ""},
	} {
		got := doppel(t.Context(), nil, append([]string{"twin", "history", "--addr", addr}, test.args...)...)
		text := got.stderr
		if got.err != nil {
			text = message(got.err)
		}
		if got.code != test.code || !strings.Contains(text, test.says) {
			t.Errorf("%v: exit code %d, want %d; %q, want %q in it", test.args, got.code, test.code, text, test.says)
		}
	}
}

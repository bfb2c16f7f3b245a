package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
)

// TestAuditAndReplay: what they print byte for byte, and the exit code by which scripts learn of a
// difference.
func TestAuditAndReplay(t *testing.T) {
	fleet, addr := serve(t)
	populate(fleet)
	for difference, code := range map[string]int{"": 0, "device pump-1: applied is 7, in the log 8": 1} {
		fleet.Differ(difference)
		for name, args := range map[string][]string{"audit": {"audit"}, "audit-shallow": {"audit", "--shallow"}, "replay": {"replay", "pump-1"}} {
			if difference != "" {
				name += "-differs"
			}
			for _, format := range []string{"table", "wide", "json", "yaml"} {
				t.Run(name+"."+format, func(t *testing.T) {
					got := doppel(t.Context(), nil, append(args, "--addr", addr, "-o", format)...)
					if got.code != code || got.stderr != "" || !strings.Contains(got.stdout, difference) {
						t.Fatalf("exit code %d, want %d; %v, %q, %s", got.code, code, got.err, got.stderr, got.stdout)
					}
					golden(t, name+"."+format, got.stdout)
				})
			}
		}
	}
}

// TestAsOf: a moment is a version, a time or an age, and one of them.
func TestAsOf(t *testing.T) {
	fleet, addr := serve(t)
	fleet.Put(apitest.Twin("a", 9))
	at := apitest.Epoch().Add(5 * time.Second)
	for _, test := range []struct {
		flags []string
		code  int
		says  string
	}{
		{[]string{"--version", "5"}, 0, `"version": "5"`},
		{[]string{"--at", at.Format(time.RFC3339Nano)}, 0, `"version": "5"`},
		{[]string{"--at", time.Since(at).String()}, 0, `"version": "5"`},
		{[]string{"--version", "0"}, 2, "version: is 0"},
		{[]string{"--version", "-1"}, 2, "--version"},
		{[]string{"--version", "10"}, 2, "version: "},
		{[]string{"--version", "1"}, 1, "no longer reaches back"},
		{[]string{"--at", apitest.Epoch().Add(-time.Hour).Format(time.RFC3339)}, 3, "no such device"},
		{[]string{"--at", "yesterday"}, 2, `--at: "yesterday" is neither`},
		{[]string{"--at", "-5s"}, 2, `--at: "-5s" is neither`},
		{[]string{"--version", "5", "--at", "5s"}, 2, "give one of them"},
	} {
		got := doppel(t.Context(), nil, append([]string{"twin", "get", "a", "--addr", addr, "-o", "json"}, test.flags...)...)
		text := got.stdout
		if got.err != nil {
			text = message(got.err)
		}
		if got.code != test.code || !strings.Contains(text, test.says) {
			t.Errorf("%v: exit code %d, want %d; %q, want %q in it", test.flags, got.code, test.code, text, test.says)
		}
	}
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{"replay"}, 2},
		{[]string{"replay", "a", "b"}, 2},
		{[]string{"replay", "nobody", "--addr", addr}, 3},
		{[]string{"replay", "a", "--addr", "127.0.0.1:1"}, 4},
		{[]string{"audit", "a"}, 2},
		{[]string{"audit", "--addr", "127.0.0.1:1"}, 4},
	} {
		if got := doppel(t.Context(), nil, test.args...); got.code != test.code {
			t.Errorf("%v: exit code %d, want %d: %v", test.args, got.code, test.code, got.err)
		}
	}
}

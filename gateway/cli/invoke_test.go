package cli

import (
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
)

// TestCommand: what it prints byte for byte.
func TestCommand(t *testing.T) {
	fleet, addr := serve(t)
	fleet.Put(apitest.Twin("a", 2))
	for _, tc := range []struct {
		args   []string
		code   int
		stdout string
		says   string
	}{
		{[]string{"a", "ping"}, 0, "Status  200\nBody    {\"device\":\"a\",\"told\":null}\n", ""},
		{[]string{"a", "ping", `{"x": [1, "2"]}`, "--queue", "--key", "k", "--timeout", "10m", "-o", "yaml"}, 0, "body:\n  device: a\n  told:\n    x:\n    - 1\n    - \"2\"\nstatus: 200\n", ""},
		{[]string{"a", "dance"}, 1, "Status  404\nBody    {\"device\":\"a\",\"told\":null}\n", "the device answered with status 404"},
		{[]string{"a"}, 2, "", "want ID NAME"},
		{[]string{"a", "b", "1", "2"}, 2, "", "want ID NAME"},
		{[]string{"a", "ping", "{"}, 2, "", "is not JSON"},
		{[]string{"a", "a/b"}, 2, "", "name: "},
		{[]string{"a", "ping", "--timeout", "11m"}, 2, "", "timeout: "},
		{[]string{"a", "ping", "--timeout", "-1s"}, 2, "", "timeout: "},
		{[]string{"a", "ping", "--key", "a b"}, 2, "", "idempotency_key: "},
		{[]string{"b", "ping"}, 3, "", "no such device"},
		{[]string{"a", "mute", "--timeout", "10ms"}, 4, "", "did not reply in time"},
		{[]string{"a", "ping", "--addr", "127.0.0.1:1"}, 4, "", ""},
	} {
		args := append([]string{"command"}, tc.args...)
		if !strings.Contains(strings.Join(args, " "), "--addr") {
			args = append(args, "--addr", addr)
		}
		got := doppel(t.Context(), nil, args...)
		if got.code != tc.code || got.stdout != tc.stdout {
			t.Errorf("%v: exit code %d, %v, prints\n%s", tc.args, got.code, got.err, got.stdout)
		}
		if tc.code != 0 && !strings.Contains(message(got.err), tc.says) {
			t.Errorf("%v: says %v, want %q", tc.args, got.err, tc.says)
		}
	}
}

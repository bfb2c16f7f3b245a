package node_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/gateway/cli"
)

// TestCommandLine: every command that ends by itself, against a real node: its exit code, a table for people, and
// JSON that is one array of a list and one object of anything else.
func TestCommandLine(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	c := newCaller(t, n.Addresses.GRPC)
	s := newScene(t, n, c)
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("rules:\n- {id: warm, kind: threshold, metric: t, levels: {warning: {enter: 60, op: \">\"}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		root := cli.Root()
		root.AddCommand(node.Command(), node.ConfigCommand())
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(args, "--addr", n.Addresses.GRPC))
		code := cli.Execute(root, node.ErrUsage)
		return out.String(), code
	}
	for _, tc := range []struct {
		args string
		code int
		says string // in the table
		list bool
	}{
		{"twin get " + s.pump, 0, s.pump, false},
		{"twin get " + nobody, 3, "", false},
		{"twin get a/b", 2, "", false},
		{"twin list --order-by id", 0, "LAST SEEN", true},
		{"twin history " + s.pump + " t", 0, "VALUE", true},
		{"twin set-desired " + s.pump + ` {"rate":5}`, 0, "rate", false},
		{"alerts list", 0, "FIRING", true},
		{"alerts ack " + s.firing, 0, "ACKNOWLEDGED", false},
		{"alerts ack " + s.resolved, 1, "", false},
		{"alerts explain " + s.firing, 0, "same alert", false},
		{"alerts silence false --for 1h", 0, "in ", false},
		{"alerts silences", 0, "false", true},
		{"rules list", 0, "builtin.zscore", true},
		{"rules test " + rules, 0, "warm", true},
		{"rules apply " + rules, 0, "warm", true},
		{"dlq list", 0, "not_decodable", true},
		{"dlq show " + s.garbage, 0, "garbage", false},
		{"dlq show 0-999", 3, "", false},
		{"dlq top", 0, "not_decodable", false},
		{"dlq redrive --filter true --dry-run", 1, "refused again", false},
		{"command " + s.gone + " ping", 1, "", false},
		{"command " + s.pump + " ping --timeout 50ms", 4, "", false},
		{"replay " + s.pump, 0, "equal", false},
		{"audit --shallow", 0, "balanced", false},
		{"cluster status", 0, n.Config.NodeID, false},
		{"cluster drain " + nobody, 3, "", false},
		{"twin reset " + s.gone, 0, s.gone, false},
		{"twin nosuch", 2, "", false},
	} {
		t.Run(tc.args, func(t *testing.T) {
			args := strings.Fields(tc.args)
			table, code := run(args...)
			if code != tc.code || !strings.Contains(table, tc.says) {
				t.Errorf("exit code %d, want %d, with %q in\n%s", code, tc.code, tc.says, table)
			}
			if tc.code == 0 {
				text, code := run(append(args, "-o", "json")...)
				if err := shaped(text, tc.list); err != nil || code != 0 {
					t.Errorf("JSON: exit code %d, %v in\n%s", code, err, text)
				}
			}
		})
	}
}

// shaped says whether text is a JSON list, or one object.
func shaped(text string, list bool) error {
	if list {
		var all []map[string]any
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return err
		}
		if len(all) == 0 {
			return errors.New("an empty list")
		}
		return nil
	}
	var one map[string]any
	return json.Unmarshal([]byte(text), &one)
}

package node_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// TestPrometheusRules: the rules that are shipped speak of metrics, labels and reasons that there are.
func TestPrometheusRules(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "prometheus", "doppel.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(string(b)))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	cfg := nodetest.Embedded(t)
	cfg.QuestDB = "http://127.0.0.1:1" // nobody there, but its metrics are
	sinks(t, &cfg, "sinks: [{name: ops, kind: webhook, url: 'http://127.0.0.1:1'}]")
	var exposed []string
	for _, n := range []*nodetest.Node{nodetest.Start(t, cfg), nodetest.Start(t, nodetest.Real(t))} {
		for name := range n.Metrics() {
			name, _, _ = strings.Cut(name, "{")
			exposed = append(exposed, name)
		}
	}
	metric := regexp.MustCompile(`doppel_[a-z_]+`)
	reasons := regexp.MustCompile(`reason=~?"([^"]*)"`)
	alerts := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			switch {
			case g.Name == "" || r.Alert == "" || alerts[r.Alert]:
				t.Errorf("%s/%s: no name, or one that is there already", g.Name, r.Alert)
			case r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "":
				t.Errorf("%s: severity, summary or description is missing", r.Alert)
			case strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")"):
				t.Errorf("%s: brackets of %s", r.Alert, r.Expr)
			}
			alerts[r.Alert] = true
			names := metric.FindAllString(r.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: no metric in %s", r.Alert, r.Expr)
			}
			for _, name := range names {
				if !slices.Contains(exposed, name) {
					t.Errorf("%s: no metric %s", r.Alert, name)
				}
			}
			for _, m := range reasons.FindAllStringSubmatch(r.Expr, -1) {
				for reason := range strings.SplitSeq(m[1], "|") {
					if !slices.Contains(twin.Reasons(), twin.Reason(reason)) {
						t.Errorf("%s: no reason %s", r.Alert, reason)
					}
				}
			}
		}
	}
	if !alerts["DoppelDeadLettersGrow"] {
		t.Error("no rule watches the growth of dead letters")
	}
}

package node

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/actors/codec"
)

// TestMetricRanges: flags, environment and both forms in YAML give the same ranges.
func TestMetricRanges(t *testing.T) {
	want := map[string]codec.Range{"temperature": {Min: -40, Max: 125.5}, "level": {Min: 0, Max: math.Inf(1)}, "drop": {Min: math.Inf(-1), Max: -1e-3}}
	for name, in := range map[string]struct{ args, env, yaml string }{
		"flags": {args: "--metric-range temperature=-40:125.5 --metric-range level=0: --metric-range drop=:-1e-3"},
		"list":  {args: "--metric-range temperature=-40:125.5,level=0:,drop=:-1e-3"},
		"env":   {env: "DOPPEL_METRIC_RANGE=temperature=-40:125.5,level=0:,drop=:-1e-3"},
		"map":   {yaml: "metric-range:\n  temperature: -40:125.5\n  level: '0:'\n  drop: ':-1e-3'\n"},
		"flow":  {yaml: "metric-range: {temperature: -40:125.5, level: '0:', drop: ':-1e-3'}\n"},
		"items": {yaml: "metric-range:\n- temperature = -40:125.5\n- 'level=0:'\n- drop=:-1e-3\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
			cfg.Flags(fs)
			if err := fs.Parse(strings.Fields(in.args)); err != nil {
				t.Fatal(err)
			}
			file := ""
			if in.yaml != "" {
				file = filepath.Join(t.TempDir(), "doppel.yaml")
				if err := os.WriteFile(file, []byte(in.yaml), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Load(fs, file, []string{in.env}); err != nil {
				t.Fatal(err)
			}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			got, err := cfg.metricRanges()
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestWrongMetricRanges: each mistake is named, all at once.
func TestWrongMetricRanges(t *testing.T) {
	var cfg Config
	cfg.Flags(pflag.NewFlagSet("run", pflag.ContinueOnError))
	for setting, want := range map[string]string{
		"temperature":       "want NAME=MIN:MAX",
		"temperature=5":     "want NAME=MIN:MAX",
		"=1:2":              `"" is not the name of a metric`,
		"1st=1:2":           `"1st" is not the name of a metric`,
		"temperature=a:2":   `"a" is not a number`,
		"temperature=1:2:3": `"2:3" is not a number`,
		"temperature=NaN:1": `"NaN" is not a number`,
		"temperature=2:1":   "2 is above 1: swap or correct them",
		"temperature=:":     "it has no bound",
		"level=1:2":         "level has a range already: keep one",
	} {
		cfg.MetricRanges = []string{"level=0:1", setting, "level2=x:"}
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `metric-range: "level2=x:"`) {
			t.Errorf("%s: got %v, want %q and what is wrong with level2", setting, err, want)
		}
	}
	for yaml, want := range map[string]string{
		"metric-range:\n  temperature:\n  - 1\n  - 2\n": ":3: metric-range: want NAME: MIN:MAX",
		"metric-range:\n- level=0:\n":                   ":2: metric-range: want a list of values; quote",
		"kafka:\n  temperature: 1:2\n":                  ":2: kafka: want a value or a list",
	} {
		file := filepath.Join(t.TempDir(), "doppel.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		cfg.Flags(fs)
		if err := Load(fs, file, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", yaml, err, want)
		}
	}
}

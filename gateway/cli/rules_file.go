package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxRulesFile bounds a file of rules: a thousand rules are some hundred kilobytes.
const maxRulesFile = 8 << 20

// readRules reads a file of rules, - from standard input.
func readRules(cmd *cobra.Command, name string) ([]*doppelv1.Rule, error) {
	from := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // it is the user's own
		if err != nil {
			return nil, usagef("%w", err)
		}
		defer f.Close() //nolint:errcheck // it is read only
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxRulesFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(text) > maxRulesFile:
		return nil, usagef("%s: larger than %d bytes", name, maxRulesFile)
	}
	rules, err := parseRules(text)
	if err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	return rules, nil
}

var errNoRules = errors.New("want a list of rules under \"rules:\": there is none")

// parseRules reads the rules of a YAML or JSON text: a member rules with a list of the JSON shape of Rule, whose
// members may be written in snake_case and whose durations as people write them ("5m").
func parseRules(text []byte) ([]*doppelv1.Rule, error) {
	var file struct {
		Rules []map[string]any `json:"rules"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		if yaml.Unmarshal(text, new([]any)) == nil {
			return nil, errors.New("want a list of rules under \"rules:\", not a list alone")
		}
		return nil, fmt.Errorf("want a list of rules under \"rules:\": %w", err)
	}
	if len(file.Rules) == 0 {
		return nil, errNoRules
	}
	rules := make([]*doppelv1.Rule, 0, len(file.Rules))
	seen := make(map[string]int, len(file.Rules))
	for i, members := range file.Rules {
		r, err := parseRule(members)
		if err != nil {
			return nil, fmt.Errorf("rules[%d] %v: %w", i, members["id"], err)
		}
		if other, twice := seen[r.GetId()]; twice {
			return nil, fmt.Errorf("rules[%d] %s: rules[%d] has the same id", i, r.GetId(), other)
		}
		seen[r.GetId()] = i
		rules = append(rules, r)
	}
	return rules, nil
}

// durations are the members of a rule that are one, in the way of either JSON or people.
var durations = map[string]bool{
	"for_duration": true, "window": true, "min_dwell": true, "escalate_after": true, "deescalate_after": true, "flap_window": true,
	"forDuration": true, "minDwell": true, "escalateAfter": true, "deescalateAfter": true, "flapWindow": true,
}

func parseRule(members map[string]any) (*doppelv1.Rule, error) {
	for name, value := range members {
		switch v := value.(type) {
		case string:
			if !durations[name] {
				continue
			}
			d, err := time.ParseDuration(v)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is no duration: write one such as 5m", name, v)
			}
			members[name] = seconds(d)
		case bool:
			if name == "mode" && !v { // what YAML makes of an off without quotes
				members[name] = "off"
			}
		}
	}
	b, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("json: %w", err)
	}
	r := new(doppelv1.Rule)
	if err := protojson.Unmarshal(b, r); err != nil {
		// Its text begins with "proto:" and a space of random width.
		_, text, _ := strings.Cut(err.Error(), ":")
		return nil, fmt.Errorf("%s", strings.TrimSpace(text))
	}
	return r, nil
}

// seconds is a duration as protojson has it.
func seconds(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	return fmt.Sprintf("%s%d.%09ds", sign, d/time.Second, d%time.Second)
}

// prefixed says where an error of the API belongs.
func prefixed(what string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	return status.Error(st.Code(), what+": "+st.Message())
}

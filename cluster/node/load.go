package node

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/doppel-iot/doppel/gateway/cli"
)

const envPrefix = "DOPPEL_"

// notSettings are environment variables of the same prefix that belong to the clients and tests.
var notSettings = []string{"DOPPEL_ADDR", "DOPPEL_TOKEN", "DOPPEL_TOKEN_FILE"}

// Load fills the settings that the command line left alone, from the environment, then from the YAML
// file (empty: none); what is in neither keeps its default. fs is parsed already and was made by
// Config.Flags. A key that is no setting is refused with the nearest one.
func Load(fs *pflag.FlagSet, file string, environ []string) error {
	settings := make(map[string]*pflag.Flag)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			settings[f.Name] = f
		}
	})
	var errs []error
	set := func(where, key, value string) {
		if f := settings[key]; !f.Changed {
			if err := fs.Set(key, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", where, err))
			}
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(notSettings, name) ||
			strings.HasPrefix(name, "DOPPEL_TEST_") || strings.HasPrefix(name, "DOPPEL_SERVICES_") {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", "-")
		if key == "config" {
			continue
		}
		if settings[key] == nil {
			near := envPrefix + strings.ToUpper(strings.ReplaceAll(nearest(key, settings), "-", "_"))
			errs = append(errs, fmt.Errorf("environment: %s is not a setting; did you mean %s?", name, near))
			continue
		}
		set("environment: "+name, key, value)
	}
	values, err := readFile(file)
	if err != nil {
		errs = append(errs, err)
	}
	for _, v := range values {
		if settings[v.key] == nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s is not a setting; did you mean %s?", file, v.line, v.key, nearest(v.key, settings)))
			continue
		}
		set(fmt.Sprintf("%s:%d: %s", file, v.line, v.key), v.key, v.value)
	}
	return errors.Join(errs...)
}

type fileValue struct {
	key, value string
	line       int
}

// readFile reads a flat YAML mapping; a list becomes comma-separated, and so does the one mapping of
// metric ranges.
func readFile(file string) ([]fileValue, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	var doc yaml.Node
	if err := yaml.NewDecoder(f).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, fmt.Errorf("config: %s: %w", file, err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("config: %s:%d: want a mapping of settings", file, root.Line)
	}
	var values []fileValue
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if first := slices.IndexFunc(values, func(fv fileValue) bool { return fv.key == k.Value }); first >= 0 {
			return nil, fmt.Errorf("config: %s:%d: %s stands on line %d already", file, k.Line, k.Value, values[first].line)
		}
		fv := fileValue{key: k.Value, line: k.Line}
		switch v.Kind {
		case yaml.ScalarNode:
			fv.value = v.Value
		case yaml.SequenceNode:
			items := make([]string, len(v.Content))
			for i, n := range v.Content {
				if n.Kind != yaml.ScalarNode {
					return nil, fmt.Errorf("config: %s:%d: %s: want a list of values; quote one that ends with a colon", file, n.Line, k.Value)
				}
				items[i] = n.Value
			}
			fv.value = strings.Join(items, ",")
		case yaml.MappingNode:
			if k.Value != "metric-range" {
				return nil, fmt.Errorf("config: %s:%d: %s: want a value or a list; settings are flat", file, v.Line, k.Value)
			}
			var items []string
			for i := 0; i+1 < len(v.Content); i += 2 {
				if v.Content[i+1].Kind != yaml.ScalarNode {
					return nil, fmt.Errorf("config: %s:%d: %s: want NAME: MIN:MAX", file, v.Content[i+1].Line, k.Value)
				}
				items = append(items, v.Content[i].Value+"="+v.Content[i+1].Value)
			}
			fv.value = strings.Join(items, ",")
		default:
			return nil, fmt.Errorf("config: %s:%d: %s: want a value or a list; settings are flat", file, v.Line, k.Value)
		}
		values = append(values, fv)
	}
	return values, nil
}

// nearest is the setting that key most likely means.
func nearest(key string, settings map[string]*pflag.Flag) string {
	return cli.Nearest(key, slices.Collect(maps.Keys(settings)))
}

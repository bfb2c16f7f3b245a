package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are how commands are called that do not say so themselves.
func examples() map[string]string {
	return map[string]string{
		"twin get":         "doppel twin get pump-1\ndoppel twin get aa:bb:cc:dd:ee:ff --at 2h -o yaml\ndoppel twin get pump-1 --version 42 -o json",
		"twin watch":       "doppel twin watch pump-1 pump-2\ndoppel twin watch --filter 'tags[\"site\"] == \"brno\"' -o json",
		"twin reset":       "doppel twin reset pump-1",
		"twin delete":      "doppel twin delete pump-1",
		"alerts watch":     "doppel alerts watch --min-severity critical\ndoppel alerts watch pump-1 --include-pending -o json",
		"alerts explain":   "doppel alerts explain 7dc1a2e4b7f00213",
		"alerts silences":  "doppel alerts silences",
		"alerts unsilence": "doppel alerts unsilence 1f0c5a7de2b34986",
		"rules list":       "doppel rules list -o wide",
		"rules apply":      "doppel rules apply rules.yaml --dry-run",
		"rules delete":     "doppel rules delete hot-pump",
		"rules test":       "doppel rules test rules.yaml --since 6h --device pump-1",
		"dlq top":          "doppel dlq top --limit 5",
		"audit":            "doppel audit\ndoppel audit --shallow -o json",
		"replay":           "doppel replay pump-1",
		"cluster status":   "doppel cluster status\ndoppel cluster status --addr node-1:9090,node-2:9090 -o json",
		"cluster drain":    "doppel cluster drain node-1\ndoppel cluster drain node-1 --undo",
		"detect":           "doppel detect --detector zscore --data series --out scores",
		"version":          "doppel version",
	}
}

// exemplify puts the examples where there are none.
func exemplify(root *cobra.Command) {
	for path, lines := range examples() {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 || strings.Contains(cmd.Example, "doppel "+path) {
			continue
		}
		cmd.Example = "  " + strings.ReplaceAll(lines, "\n", "\n  ")
	}
}

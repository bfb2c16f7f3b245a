package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestComplete: what the shell is offered; nothing, and no word of why, where nobody answers.
func TestComplete(t *testing.T) {
	fleet, letters, addr := serveLetters(t)
	populate(fleet)
	fleet.Put(apitest.Twin("aa:bb:cc", 1))
	letters.Add(&doppelv1.DeadLetter{Device: "pump-1", Reason: "not_decodable"})
	for line, want := range map[string]string{
		"twin get pump-":                 "pump-1 pump-2",
		"twin get aa:":                   "aa:bb:cc",
		"twin get pump-1 p":              "",
		"twin watch pump-1 p":            "pump-1 pump-2",
		"twin history pump-1 t":          "temperature",
		"alerts ack 0":                   "00000000000000ff",
		"alerts explain 0":               "00000000000000ff",
		"dlq show 0":                     "0-0",
		"cluster drain n":                "n1",
		"twin list -o j":                 "table wide json yaml",
		"command pump":                   "pump-1 pump-2",
		"twin get \"":                    "",
		"replay --addr 127.0.0.1:1 pump": "",
	} {
		args := strings.Fields(line)
		if !strings.Contains(line, "--addr") {
			args = slices.Insert(args, len(args)-1, "--addr", addr)
			if strings.Contains(line, " -o ") {
				args = strings.Fields(line)
			}
		}
		got := doppel(t.Context(), nil, append([]string{cobra.ShellCompRequestCmd}, args...)...)
		var words []string
		for l := range strings.Lines(got.stdout) {
			if word, _, _ := strings.Cut(strings.TrimSpace(l), "\t"); !strings.HasPrefix(word, ":") {
				words = append(words, word)
			}
		}
		if have := strings.Join(words, " "); have != want || got.code != 0 {
			t.Errorf("%s: offered %q, want %q; exit code %d", line, have, want, got.code)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := doppel(t.Context(), nil, "completion", shell); got.code != 0 || !strings.Contains(got.stdout, cobra.ShellCompRequestCmd) {
			t.Errorf("completion %s: exit code %d, %.60q", shell, got.code, got.stdout)
		}
	}
}

// TestPaint: words of a table have colours where they are columns, and only for a terminal that wants them.
func TestPaint(t *testing.T) {
	in := "0ff  FIRING  CRITICAL  pump-1  CRITICAL heat\nonline\n"
	want := "0ff  " + red + "FIRING" + plain + "  " + red + "CRITICAL" + plain + "  pump-1  CRITICAL heat\n" + green + "online" + plain + "\n"
	if got := string(paint([]byte(in))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if !colourful(terminal) || colourful(file) || colourful(&lines{}) {
		t.Error("colours are for terminals")
	}
	t.Setenv("NO_COLOR", "1")
	if colourful(terminal) {
		t.Error("NO_COLOR is not heard")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if colourful(terminal) {
		t.Error("a dumb terminal has colours")
	}
}

// TestEveryCommand of people is there by its name, says what it does, and shows how it is called.
func TestEveryCommand(t *testing.T) {
	root := Root()
	for _, path := range []string{
		"twin get", "twin list", "twin count", "twin watch", "twin history", "twin set-desired", "twin delete", "twin reset", "command", "alerts list", "alerts watch", "alerts ack",
		"alerts silence", "alerts explain", "rules list", "rules apply", "rules delete", "rules test", "dlq list", "dlq show", "dlq top",
		"dlq redrive", "audit", "replay", "cluster status", "cluster drain", "detect", "version",
	} {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 || cmd.CommandPath() != "doppel "+path {
			t.Errorf("no command %q: %v", path, err)
			continue
		}
		if cmd.Short == "" || !strings.Contains(cmd.Example, "doppel "+path) {
			t.Errorf("%s: its help is %q, with the example %q", path, cmd.Short, cmd.Example)
		}
	}
	for path := range arguments() {
		if _, rest, err := root.Find(strings.Fields(path)); err != nil || len(rest) > 0 {
			t.Errorf("arguments of %q, which is no command", path)
		}
	}
}

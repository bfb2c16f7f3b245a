package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/sim/oracle"
)

// simulate runs `doppel sim` to its end and returns its report and the CPU time it used.
func simulate(b *testing.B, flags ...string) (*oracle.Report, time.Duration) {
	b.Helper()
	file := filepath.Join(b.TempDir(), "report.json")
	sim := exec.CommandContext(b.Context(), binary(b), append([]string{"sim", "--quiet", "--report", file}, flags...)...)
	if out, err := sim.CombinedOutput(); err != nil {
		b.Fatalf("sim %v: %v\n%s", flags, err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	var r oracle.Report
	if err := json.Unmarshal(text, &r); err != nil {
		b.Fatal(err)
	}
	return &r, sim.ProcessState.UserTime() + sim.ProcessState.SystemTime()
}

package oracle

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// The keys are public: whoever reads reports by machine holds on to them.
func TestReportGolden(t *testing.T) {
	t.Parallel()
	h := hdrhistogram.New(1, 600e6, 2)
	for i := range 1000 {
		if err := h.RecordValue(int64(i+1) * 100); err != nil {
			t.Fatal(err)
		}
	}
	precision, cpu, found, rows, settled := 0.75, 5.25, 11, uint64(1000), 840.5
	full := Report{
		Sent: 1000, Acked: 999, Lost: 1, Duplicated: 2, Reordered: 3, DigestMismatches: 4, Rate: 99.9,
		LatencyMS: Latencies{Puback: PercentilesOf(h), Kafka: PercentilesOf(h), Alert: PercentilesOf(h)},
		Alerts: &Alerts{
			TruePositive: 3, FalsePositive: 1, Precision: &precision, Recall: &precision, DelayMSP50: &settled,
			ByKind: map[string]Found{"spike": {Found: 3}},
		},
		NodeCPU: &cpu, Devices: 10, Boot: 1795374749047, Seed: 1, Messages: 1100, Resent: 5, DuplicatesSent: 50,
		SwapsSent: 49, Late: 5, Cuts: 2, PoisonSent: 11, PoisonFound: &found, QuestDBRows: &rows, QuestDBSettledMS: &settled,
		Verified: true, Skipped: []string{}, Findings: []string{"lost: d1: twin: 10 samples acknowledged, 9 taken"},
	}
	empty := Report{
		Devices: 1, LatencyMS: Latencies{Puback: PercentilesOf(hdrhistogram.New(1, 10, 2))},
		Skipped: []string{"verification (no --verify)"}, Findings: []string{},
	}
	for name, r := range map[string]Report{"full": full, "empty": empty} {
		file := filepath.Join(t.TempDir(), "report.json")
		if err := r.WriteFile(file); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := r.Print(&text); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", got)
		golden(t, name+".txt", text.Bytes())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

package system_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// report is what this test reads of a simulator's report.
type report struct {
	Sent             uint64  `json:"sent"`
	Acked            uint64  `json:"acked"`
	Lost             uint64  `json:"lost"`
	Duplicated       uint64  `json:"duplicated"`
	Reordered        uint64  `json:"reordered"`
	DigestMismatches uint64  `json:"digest_mismatches"`
	DuplicatesSent   uint64  `json:"duplicates_sent"`
	Cuts             uint64  `json:"connections_cut"`
	PoisonSent       uint64  `json:"poison_sent"`
	PoisonFound      *int    `json:"poison_found"`
	QuestDBRows      *uint64 `json:"questdb_rows"`
	Verified         bool    `json:"verified"`
}

// simulate runs a fleet on p that must find everything in order.
func (p *process) simulate(args ...string) report {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "report.json")
	r := run(p.t, nil, binary, append([]string{
		"sim", "--broker", p.broker, "--grpc", p.GRPC, "--http", p.HTTP, "--kafka", p.kafka, "--topic-root", p.root, "--topic-prefix", p.prefix,
		"--verify", "--quiet", "--report", file,
	}, args...)...)
	if r.code != 0 {
		p.t.Fatalf("sim: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(b, &rep); err != nil {
		p.t.Fatalf("report: %v: %s", err, b)
	}
	if rep.Acked == 0 || rep.Acked != rep.Sent || rep.Lost+rep.Duplicated+rep.Reordered+rep.DigestMismatches != 0 || !rep.Verified {
		p.t.Errorf("report %+v, want all of it acknowledged and nothing wrong", rep)
	}
	return rep
}

// TestSimulatorVerifies: a fleet that repeats, swaps, poisons and loses its connections finds every
// sample once and in order, and its poison in the dead letters.
func TestSimulatorVerifies(t *testing.T) {
	load := []string{
		"--devices", "100", "--rate", "10", "--duration", "10s", "--faults", "dup=0.05,reorder=0.05,drop-conn=0.02,poison=0.01", "--prefix", nodetest.Unique("s") + "-",
	}
	onBoth(t, func(t *testing.T, p *process) {
		args := load
		if p.kafka != p.Kafka {
			args = append(args, "--questdb", nodetest.RealServices(t).QuestDB)
		}
		rep := p.simulate(args...)
		if rep.DuplicatesSent == 0 || rep.Cuts == 0 || rep.PoisonSent == 0 {
			t.Errorf("report %+v: faults were asked for and not all made", rep)
		}
		if rep.PoisonFound == nil || uint64(*rep.PoisonFound) != rep.PoisonSent {
			t.Errorf("found %v of %d poison messages", rep.PoisonFound, rep.PoisonSent)
		}
		if p.kafka != p.Kafka && (rep.QuestDBRows == nil || *rep.QuestDBRows != rep.Sent) {
			t.Errorf("QuestDB has %v rows, want %d", rep.QuestDBRows, rep.Sent)
		}
	})
}

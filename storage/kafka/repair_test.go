package kafka

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A log that was not closed gets a snapshot that fits, and loses only what is not whole.
func TestRepair(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 1, Linger: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{}
	for i := range 3 {
		c.Changelog().Append(t.Context(), 0, numbered(uint64(i*10+1), 10), j)
		until(t, "the batch is written", func() bool { return len(j.answers()) == (i+1)*10 })
	}
	txn, err := kgo.NewClient(append(c.Options(), kgo.TransactionalID("other"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := txn.ProduceSync(t.Context(), &kgo.Record{Topic: c.Topics().Ingest, Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	txn.Close()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	// As the files are now, so a kill would leave them.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(killed, "partitions", "doppel.telemetry-0")
	whole, err := segmentsOf(part)
	if err != nil || len(whole) != 1 || whole[0].Size%3 != 0 {
		t.Fatalf("got segments %v and error %v, want one of three batches", whole, err)
	}
	path := segmentPath(part, whole[0].BaseOffset)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := b[len(b)/3*2:] // of three alike
	for _, torn := range [][]byte{nil, b[:5], b[:batchHeader], last[:len(last)-1], make([]byte, 100), flipped(last)} {
		if err := os.WriteFile(path, append(slices.Clone(b), torn...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := repair(killed); err != nil {
			t.Fatal(err)
		}
		got, err := segmentsOf(part)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, whole) {
			t.Errorf("with %d bytes torn: got segments %v, want %v", len(torn), got, whole)
		}
		if _, err := os.Stat(filepath.Join(part, snapshotFile)); err != nil {
			t.Errorf("with %d bytes torn: no snapshot: %v", len(torn), err)
		}
	}
	if _, err := os.Stat(filepath.Join(killed, "partitions", "doppel.ingest-0", snapshotFile)); err == nil {
		t.Error("got a snapshot of a partition with transactions, want it left to the broker")
	}

	e = embedded(t, killed)
	if c, err = Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start, end, err := c.Changelog().Bounds(t.Context(), 0)
	if err != nil || start != 0 || end != 30 {
		t.Errorf("got bounds %d and %d and error %v, want 0 and 30", start, end, err)
	}
}

// flipped is b with one bit of its last byte changed.
func flipped(b []byte) []byte {
	b = slices.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

package placement

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// The values are those of Kafka's own test of Utils.murmur2.
func TestMurmur2(t *testing.T) {
	for _, c := range []struct {
		key  string
		want int32
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
	} {
		if got := int32(murmur2([]byte(c.key))); got != c.want {
			t.Errorf("murmur2(%q): got %d, want %d", c.key, got, c.want)
		}
	}
}

// Where devices live is part of what is stored: these must never change.
func TestPartitionGolden(t *testing.T) {
	for _, c := range []struct {
		device    string
		of8, of64 int32
	}{
		{"", 1, 25},
		{"a", 4, 60},
		{"pump-1", 7, 31},
		{"pump-2", 7, 39},
		{"device-000042", 3, 59},
		{"AA:BB:CC:DD:EE:FF", 2, 58},
		{"sensor@hall.3", 2, 26},
	} {
		if got := Partition([]byte(c.device), 8); got != c.of8 {
			t.Errorf("%q of 8: got %d, want %d", c.device, got, c.of8)
		}
		if got := Partition([]byte(c.device), 64); got != c.of64 {
			t.Errorf("%q of 64: got %d, want %d", c.device, got, c.of64)
		}
		if got := Partition([]byte(c.device), 1); got != 0 {
			t.Errorf("%q of 1: got %d, want 0", c.device, got)
		}
	}
}

// Any producer with Kafka's default partitioner must put a device's records where its twin is looked for.
func TestPartitionAgreesWithClients(t *testing.T) {
	other := kgo.StickyKeyPartitioner(nil).ForTopic("doppel.ingest")
	rapid.Check(t, func(t *rapid.T) {
		device := rapid.SliceOfN(rapid.Byte(), 1, 128).Draw(t, "device")
		n := rapid.Int32Range(1, 10_000).Draw(t, "partitions")
		got := Partition(device, n)
		if want := other.Partition(&kgo.Record{Key: device}, int(n)); got != int32(want) {
			t.Fatalf("got partition %d, want %d", got, want)
		}
	})
}

func TestPartitionSpreads(t *testing.T) {
	const devices, partitions = 64_000, 64
	var count [partitions]int
	for i := range devices {
		count[Partition(fmt.Appendf(nil, "device-%06d", i), partitions)]++
	}
	for p, n := range count {
		if mean := devices / partitions; n < mean*8/10 || n > mean*12/10 {
			t.Errorf("partition %d has %d devices of %d, want within a fifth of %d", p, n, devices, mean)
		}
	}
}

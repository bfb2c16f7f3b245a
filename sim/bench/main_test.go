// Package bench measures the node as its users run it: the built binary in a process of its own, its
// fleet in another, on the services that `make bench` starts.
//
// It holds benchmarks only. Each does one whole run, whose figures are CPU time of the node's process,
// so that they mean the same on a busy machine; rates and latencies do not. BenchmarkDrain is of
// queued messages, BenchmarkEmbedded of a node without services, BenchmarkAlertLatency of a steady
// stream, BenchmarkMillionTwins of memory, BenchmarkTwoNodes of what it costs that nodes share the work. BenchmarkGetTwin, BenchmarkListTwins,
// BenchmarkWatchTwins and BenchmarkWatchAlerts are of the API beside a fleet that goes on sending.
//
// DOPPEL_TEST_BINARY=FILE measures another build; DOPPEL_TEST_PROFILE=DIR keeps CPU and allocation
// profiles of the nodes there.
package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := m.Run()
	if err := os.RemoveAll(built.dir); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// built is the binary under measurement, made by the first benchmark that needs it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func binary(b *testing.B) string {
	b.Helper()
	if given := os.Getenv("DOPPEL_TEST_BINARY"); given != "" {
		return given
	}
	built.once.Do(func() {
		//nolint:usetesting // it outlives the benchmark that makes it
		if built.dir, built.err = os.MkdirTemp("", "doppel-bench"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir+"/doppel", "github.com/doppel-iot/doppel")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		b.Fatal(built.err)
	}
	return filepath.Join(built.dir, "doppel")
}

// services are the real ones.
type services struct{ kafka, questdb, mqtt string }

func realServices(b *testing.B) services {
	b.Helper()
	s := services{os.Getenv("DOPPEL_TEST_KAFKA"), os.Getenv("DOPPEL_TEST_QUESTDB"), os.Getenv("DOPPEL_TEST_MQTT")}
	if s.kafka == "" || s.questdb == "" || s.mqtt == "" {
		b.Fatal("DOPPEL_TEST_KAFKA, DOPPEL_TEST_QUESTDB and DOPPEL_TEST_MQTT must name the real services: run make bench")
	}
	return s
}

// flags connect a node to the services, with topics, group and MQTT names of its own.
func (s services) flags(name string) []string {
	return []string{
		"--kafka", s.kafka, "--questdb", s.questdb, "--mqtt", s.mqtt, "--node-addr", "127.0.0.1:0",
		"--node-id", name, "--group", name, "--topic-root", name, "--topic-prefix", name + ".",
	}
}

var uniques atomic.Uint64

// unique makes a name that no earlier run uses on the same services.
func unique(prefix string) string {
	return fmt.Sprintf("%s-%x-%d", prefix, time.Now().UnixMilli(), uniques.Add(1))
}

// eventually tries until ok holds.
func eventually(limit time.Duration, ok func() bool) error {
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v", limit)
		}
		time.Sleep(pollEvery)
	}
	return nil
}

// pollEvery is long because a scrape costs the node a millisecond or two, which is measured too.
const pollEvery = 500 * time.Millisecond

package system_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// TestWalkthrough: a person with grpcurl, curl, mosquitto_pub, mosquitto_sub and doppel walks through every
// part of the product, on real Kafka and QuestDB, with Mosquitto and with HiveMQ in its place.
func TestWalkthrough(t *testing.T) {
	s := nodetest.RealServices(t)
	if s.HiveMQ == "" {
		t.Fatal("DOPPEL_TEST_HIVEMQ is not set: run make test")
	}
	parts, err := filepath.Glob("walkthrough/[1-9]-*")
	if err != nil || len(parts) != 9 {
		t.Fatalf("%d parts, want 9: %v", len(parts), err)
	}
	for broker, url := range map[string]string{"mosquitto": s.MQTT, "hivemq": s.HiveMQ} {
		t.Run(broker, func(t *testing.T) {
			root := nodetest.Unique("root")
			p := start(t, "--mqtt", url, "--kafka", s.Kafka, "--questdb", s.QuestDB, "--group", nodetest.Unique("group"),
				"--topic-root", root, "--topic-prefix", nodetest.Unique("walk")+".", "--data-dir", t.TempDir())
			for _, part := range parts {
				t.Run(filepath.Base(part), func(t *testing.T) {
					cmd := exec.CommandContext(t.Context(), "./"+part)
					cmd.Env = append(clean(), "DOPPEL="+binary, "GRPC="+p.GRPC, "HTTP="+p.HTTP, "MQTT="+strings.TrimPrefix(url, "mqtt://"), "ROOT="+root)
					out, err := os.Create(filepath.Join(t.TempDir(), "out")) // not a pipe: what it leaves behind must not hold us up
					if err != nil {
						t.Fatal(err)
					}
					defer out.Close()
					cmd.Stdout, cmd.Stderr = out, out
					if err := cmd.Run(); err != nil {
						text, _ := os.ReadFile(out.Name())
						t.Fatalf("%v\n%s", err, text)
					}
				})
			}
		})
	}
}

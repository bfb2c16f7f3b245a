package kafka

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/doppel-iot/doppel/storage/storagetest"
)

// backend is a log to test on.
type backend struct {
	name    string
	connect func(t testing.TB) Config
}

// backends are the embedded log in memory, on disk and without the network between, and a real Kafka where DOPPEL_TEST_KAFKA names
// one (HOST:PORT). `make test` starts one and sets it, and refuses to run without.
func backends() []backend {
	bs := []backend{
		{"memory", func(t testing.TB) Config { return local(embedded(t, "")) }},
		{"disk", func(t testing.TB) Config { return local(embedded(t, t.TempDir())) }},
		{"inside", func(t testing.TB) Config {
			e := embedded(t, t.TempDir())
			cfg := local(e)
			cfg.Dialer = e.Dialer()
			return cfg
		}},
	}
	if addr := os.Getenv("DOPPEL_TEST_KAFKA"); addr != "" {
		bs = append(bs, backend{"kafka", func(testing.TB) Config { return Config{Brokers: []string{addr}} }})
	}
	return bs
}

func local(e *Embedded) Config { return Config{Brokers: []string{e.Addr()}, Embedded: true} }

func embedded(t testing.TB, dir string) *Embedded {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// config is for topics of the test's own, which are deleted afterwards.
func (b backend) config(t testing.TB) Config {
	t.Helper()
	cfg := b.connect(t)
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune(topicAlphabet, r) {
			return r
		}
		return '-'
	}, t.Name())
	cfg.TopicPrefix = fmt.Sprintf("%s-%d.", name, time.Now().UnixNano())
	cfg.Partitions = storagetest.Partitions
	return cfg
}

func open(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n := c.Topics()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := c.adm.DeleteTopics(ctx, n.Ingest, n.Telemetry, n.State, n.Alerts, n.DLQ, n.Rules, n.Nodes); err != nil {
			t.Logf("delete topics: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestChangelog(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			storagetest.RunLog(t, func(t *testing.T) storagetest.Log {
				c := open(t, b.config(t))
				return storagetest.Log{
					Log: c.Changelog(),
					Truncated: ErrTruncated,
					Truncate: func(t *testing.T, p int32, before int64) {
						t.Helper()
						var os kadm.Offsets
						os.AddOffset(c.Topics().Telemetry, p, before, -1)
						if _, err := c.adm.DeleteRecords(t.Context(), os); err != nil {
							t.Fatal(err)
						}
					},
				}
			})
		})
	}
}

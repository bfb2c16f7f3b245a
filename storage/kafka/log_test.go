package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
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
	clusters.Store(e.Addr(), e)
	t.Cleanup(func() {
		clusters.Delete(e.Addr())
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

// clusters are the embedded logs of the tests, by address.
var clusters sync.Map

func TestChangelog(t *testing.T) { runLog(t, (*Client).Changelog) }

func TestState(t *testing.T) { runLog(t, (*Client).State) }

func runLog(t *testing.T, which func(*Client) *Log) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			storagetest.RunLog(t, func(t *testing.T) storagetest.Log {
				c := open(t, b.config(t))
				l := storagetest.Log{
					Log:       which(c),
					Truncated: ErrTruncated,
					Truncate: func(t *testing.T, p int32, before int64) {
						t.Helper()
						topic := which(c).topic
						if topic == c.topics.State { // from one that is only compacted Kafka removes none
							configure(t, c, topic, map[string]string{"cleanup.policy": "compact,delete"})
						}
						var os kadm.Offsets
						os.AddOffset(topic, p, before, -1)
						until(t, "the records are removed", func() bool { // a change of the policy takes its time
							resp, err := c.adm.DeleteRecords(t.Context(), os)
							return errors.Join(err, resp.Error()) == nil
						})
					},
				}
				if l.Log == host.Log(c.State()) {
					l.Compact = func(t *testing.T, p int32) { compact(t, c, p) }
				}
				return l
			})
		})
	}
}

func configure(t *testing.T, c *Client, topic string, to map[string]string) {
	t.Helper()
	var settings []kadm.AlterConfig
	for k, v := range to {
		settings = append(settings, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	if _, err := c.adm.AlterTopicConfigs(t.Context(), settings, topic); err != nil {
		t.Fatal(err)
	}
}

// compact has p of state compacted, and returns when that shows.
func compact(t *testing.T, c *Client, p int32) {
	t.Helper()
	if e, ok := clusters.Load(c.cfg.Brokers[0]); ok {
		e.(*Embedded).cluster.Compact()
		return
	}
	configure(t, c, c.topics.State, map[string]string{"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"})
	left := func() int {
		n := 0
		start, end, err := c.State().Bounds(t.Context(), p)
		if err == nil {
			err = c.State().Read(t.Context(), p, start, end, func(host.LogRecord) error { n++; return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := left()
	for deadline := time.Now().Add(2 * time.Minute); left() > before/2; {
		if time.Now().After(deadline) {
			t.Fatalf("still %d of %d records after two minutes", left(), before)
		}
		// A segment is closed, and so may be compacted, when a record comes that is too young for it.
		r := &kgo.Record{Topic: c.topics.State, Partition: p, Key: []byte("tick")}
		if err := c.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := rest(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

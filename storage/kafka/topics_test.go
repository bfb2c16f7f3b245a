package kafka

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/storage/storagetest"
)

// admin connects to cfg's brokers without touching topics.
func admin(t *testing.T, cfg Config) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.MetadataMinAge(1e8))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func TestOpenMakesTopics(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			cfg := b.config(t)
			var wg sync.WaitGroup
			for range 3 { // nodes start together
				wg.Go(func() { open(t, cfg) })
			}
			wg.Wait()
			adm := admin(t, cfg)
			n := topicNames(cfg.TopicPrefix)
			type made struct {
				Partitions int
				Policy     string
				Retention  string
			}
			days7, days30 := "604800000", "2592000000"
			if cfg.Embedded {
				days7, days30 = "-1", "-1"
			}
			want := map[string]made{
				n.Ingest:    {4, "delete", days7},
				n.Telemetry: {4, "delete", days7},
				n.State:     {4, "compact", ""},
				n.Alerts:    {4, "delete", days30},
				n.DLQ:       {1, "delete", days30},
				n.Rules:     {1, "compact", ""},
				n.Nodes:     {1, "compact", ""},
			}
			got := map[string]made{}
			topics, err := adm.ListTopics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for name, d := range topics {
				if _, ok := want[name]; !ok {
					continue
				}
				m := made{Partitions: len(d.Partitions)}
				rcs, err := adm.DescribeTopicConfigs(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				for _, kv := range rcs[0].Configs {
					switch kv.Key {
					case "cleanup.policy":
						m.Policy = kv.MaybeValue()
					case "retention.ms":
						m.Retention = kv.MaybeValue()
					}
				}
				if m.Policy == "compact" {
					m.Retention = "" // of no effect
				}
				got[name] = m
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("topics (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenRefusesWrongTopics(t *testing.T) {
	value := func(s string) *string { return &s }
	for _, c := range []struct {
		name       string
		topic      func(Topics) string
		partitions int32
		policy     string
		want       []string // in the error
	}{
		{"partitions", func(n Topics) string { return n.Telemetry }, 3, "delete", []string{"telemetry", "3 partitions", "wanted 4", "--partitions 3"}},
		{"policy of the changelog", func(n Topics) string { return n.Telemetry }, 4, "compact", []string{"telemetry", "cleanup.policy=compact", "wanted delete"}},
		{"policy of the state", func(n Topics) string { return n.State }, 4, "delete", []string{"state", "cleanup.policy=delete", "wanted compact"}},
		{"both policies", func(n Topics) string { return n.State }, 4, "compact,delete", []string{"state", "compact,delete", "wanted compact"}},
	} {
		for _, b := range backends() {
			t.Run(c.name+"/"+b.name, func(t *testing.T) {
				cfg := b.config(t)
				adm := admin(t, cfg)
				topic := c.topic(topicNames(cfg.TopicPrefix))
				if _, err := adm.CreateTopic(t.Context(), c.partitions, -1, map[string]*string{"cleanup.policy": value(c.policy)}, topic); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					n := topicNames(cfg.TopicPrefix)
					adm.DeleteTopics(t.Context(), n.Ingest, n.Telemetry, n.State, n.Alerts, n.DLQ, n.Rules, n.Nodes)
				})
				cl, err := Open(t.Context(), cfg)
				if err == nil {
					cl.Close()
					t.Fatal("opened, want an error")
				}
				if !errors.Is(err, ErrTopic) {
					t.Errorf("got error %v, want %v", err, ErrTopic)
				}
				for _, w := range c.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("got error %q, want %q in it", err, w)
					}
				}
			})
		}
	}
}

func TestOpenRefusesConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no brokers", Config{}, "no brokers"},
		{"prefix", Config{Brokers: []string{"127.0.0.1:1"}, TopicPrefix: "a b"}, "topic prefix"},
		{"partitions", Config{Brokers: []string{"127.0.0.1:1"}, Partitions: -1}, "-1 partitions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(t.Context(), c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestLargestRecord: the changelog takes what the longest wait of a twin may end in, also in a topic
// that was made before it had to.
func TestLargestRecord(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			cfg := b.config(t)
			policy := "delete"
			if _, err := admin(t, cfg).CreateTopic(t.Context(), storagetest.Partitions, -1,
				map[string]*string{"cleanup.policy": &policy}, topicNames(cfg.TopicPrefix).Telemetry); err != nil {
				t.Fatal(err)
			}
			l := open(t, cfg).Changelog()
			want := bytes.Repeat([]byte{1, 2, 3}, 3<<20)
			j := &journal{}
			l.Append(t.Context(), 1, []host.Record{{N: 1, Key: []byte("d"), Value: want}}, j)
			until(t, "it is answered", func() bool { return len(j.answers()) == 1 })
			a := j.answers()[0]
			if a.err != nil {
				t.Fatal(a.err)
			}
			var got []byte
			err := l.Read(t.Context(), 1, a.offset, a.offset+1, func(r host.LogRecord) error {
				got = bytes.Clone(r.Value)
				return nil
			})
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes and error %v, want the %d written", len(got), err, len(want))
			}
		})
	}
}

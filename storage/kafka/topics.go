package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Topics are the full names of the topics.
type Topics struct {
	Ingest, Telemetry, State, Alerts, DLQ, Rules, Nodes, Audit string
}

func topicNames(prefix string) Topics {
	return Topics{
		Ingest:    prefix + "ingest",
		Telemetry: prefix + "telemetry",
		State:     prefix + "state",
		Alerts:    prefix + "alerts",
		DLQ:       prefix + "dlq",
		Rules:     prefix + "rules",
		Nodes:     prefix + "nodes",
		Audit:     prefix + "audit",
	}
}

// topic is what one topic must be like.
type topic struct {
	name       string
	partitions int32
	compact    bool
	keep       time.Duration // of a topic that is not compacted
	largest    int           // bytes of a batch of records; 0: what the broker takes anyway
}

// largestEvent is the most a batch of the changelog, and of the checkpoints, may have. Usual records have 200 bytes, but one
// that ends the waiting of a device's samples carries all of them: 1,024, each with 64 metrics of long
// names, are 6 MB. A record that does not fit would end each epoch of its partition anew.
const largestEvent = 16 << 20

const day = 24 * time.Hour

// wanted lists the topics. alerts has as many partitions as telemetry, so that an alert is found
// where its device is; dlq has one, so that the dead letters have one order.
func (c *Config) wanted() []topic {
	n, p := topicNames(c.TopicPrefix), c.Partitions
	return []topic{
		{name: n.Ingest, partitions: p, keep: 7 * day},
		{name: n.Telemetry, partitions: p, keep: 7 * day, largest: largestEvent},
		{name: n.State, partitions: p, compact: true, largest: largestEvent},
		{name: n.Alerts, partitions: p, keep: 30 * day},
		{name: n.DLQ, partitions: 1, keep: 30 * day},
		{name: n.Rules, partitions: 1, compact: true},
		{name: n.Nodes, partitions: 1, compact: true},
		{name: n.Audit, partitions: 1, keep: 90 * day},
	}
}

// settings are the configuration a new topic is made with.
//
// On the embedded log nothing expires by the broker's rules: its retention may delete the last
// segment of a quiet partition, and a partition without segments begins again at offset 0 when the
// log is reopened, which would break every stored position. Telemetry moreover must keep what the
// oldest checkpoint needs, which the broker cannot know. Client.Run deletes by age instead what
// may be deleted by age, and never the last record.
func (t *topic) settings(c *Config) map[string]*string {
	s := map[string]string{"cleanup.policy": t.policy()}
	switch {
	case c.Embedded:
		s["retention.ms"], s["retention.bytes"] = "-1", "-1"
		s["segment.bytes"] = strconv.FormatInt(c.segmentBytes(), 10)
	case !t.compact:
		s["retention.ms"], s["retention.bytes"] = strconv.FormatInt(t.keep.Milliseconds(), 10), "-1"
	}
	if t.largest > 0 {
		s[maxBatch] = strconv.Itoa(t.largest)
	}
	m := make(map[string]*string, len(s))
	for k, v := range s {
		m[k] = &v
	}
	return m
}

// segmentBytes is the size of a segment file of the embedded log. Small, because what is removed is
// removed by the segment, and because segments are read whole, one of each partition at a time, when
// the log is reopened. Smaller still where the log may not be large: what is never removed is the newest
// segment of each partition of four topics.
func (c *Config) segmentBytes() int64 {
	return min(max(c.RetentionBytes/int64(c.Partitions)/16, 1<<20), 16<<20)
}

// maxBatch is the topic's setting for the size of a batch.
const maxBatch = "max.message.bytes"

func (t *topic) policy() string {
	if t.compact {
		return "compact"
	}
	return "delete"
}

// ErrTopic is in the chain of the error for a topic that exists and is not what Doppel needs.
var ErrTopic = errors.New("topic does not fit")

// ensureTopics makes the topics that are missing and refuses those that are wrong. Nodes may do so at
// the same time. It returns when every partition has a leader.
func (c *Client) ensureTopics(ctx context.Context) error {
	want := c.cfg.wanted()
	names := make([]string, len(want))
	for i := range want {
		names[i] = want[i].name
	}
	var last error
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		have, err := c.adm.ListTopics(ctx, names...)
		if err != nil {
			return fmt.Errorf("list topics: %w", err)
		}
		if last, err = c.settle(ctx, want, have); err != nil {
			return err
		}
		if last == nil {
			return c.checkSettings(ctx, want, names)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for topics: %w: %w", ctx.Err(), last)
		case <-time.After(wait):
		}
	}
}

// settle makes what is missing. pending says what is not ready yet; a broker acknowledges the making
// of a topic before it knows the topic.
func (c *Client) settle(ctx context.Context, want []topic, have kadm.TopicDetails) (pending, err error) {
	for i := range want {
		t := &want[i]
		d, ok := have[t.name]
		if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			if err := c.create(ctx, t); err != nil {
				return nil, err
			}
			pending = fmt.Errorf("topic %s: just made", t.name)
			continue
		}
		if d.Err != nil {
			if !kerr.IsRetriable(d.Err) {
				return nil, fmt.Errorf("topic %s: %w", t.name, d.Err)
			}
			pending = fmt.Errorf("topic %s: %w", t.name, d.Err)
			continue
		}
		if got := int32(len(d.Partitions)); got != t.partitions {
			return nil, fmt.Errorf("%w: %s has %d partitions, wanted %d: start with --partitions %d if that is how it was made, "+
				"choose another --topic-prefix, or delete the topic (its data goes with it)", ErrTopic, t.name, got, t.partitions, got)
		}
		for p := range d.Partitions {
			if pd := d.Partitions[p]; pd.Err != nil || pd.Leader < 0 {
				pending = fmt.Errorf("topic %s: partition %d has no leader", t.name, p)
			}
		}
	}
	return pending, nil
}

func (c *Client) create(ctx context.Context, t *topic) error {
	_, err := c.adm.CreateTopic(ctx, t.partitions, c.cfg.ReplicationFactor, t.settings(&c.cfg), t.name)
	switch {
	case err == nil:
		c.cfg.Logger.Info("topic made", "topic", t.name, "partitions", t.partitions, "policy", t.policy())
		return nil
	case errors.Is(err, kerr.TopicAlreadyExists) || kerr.IsRetriable(err):
		return nil // another node was quicker, or the next round tries again
	default:
		return fmt.Errorf("make topic %s: %w", t.name, err)
	}
}

// checkSettings refuses a topic whose cleanup policy would delete what Doppel needs, or keep what it
// counts on being deleted, and sees to it that one takes the largest records it will get.
func (c *Client) checkSettings(ctx context.Context, want []topic, names []string) error {
	configs, err := c.adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	for i := range want {
		t := &want[i]
		rc, err := configs.On(t.name, nil)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", t.name, err)
		}
		if rc.Err != nil {
			return fmt.Errorf("describe topic %s: %w", t.name, rc.Err)
		}
		got := "delete" // the broker's default, where it does not tell
		takes := 0
		for _, kv := range rc.Configs {
			switch {
			case kv.Value == nil:
			case kv.Key == "cleanup.policy":
				got = strings.ReplaceAll(*kv.Value, " ", "")
			case kv.Key == maxBatch:
				takes, _ = strconv.Atoi(*kv.Value)
			}
		}
		if got != t.policy() {
			return fmt.Errorf("%w: %s has cleanup.policy=%s, wanted %s: change the topic's cleanup.policy or choose another --topic-prefix",
				ErrTopic, t.name, got, t.policy())
		}
		if takes < t.largest {
			if err := c.widen(ctx, t); err != nil {
				return fmt.Errorf("%w: %s has %s=%d and does not let it be raised: set it to %d: %w", ErrTopic, t.name, maxBatch, takes, t.largest, err)
			}
		}
	}
	return nil
}

// widen makes an older topic take batches as large as a new one does.
func (c *Client) widen(ctx context.Context, t *topic) error {
	value := strconv.Itoa(t.largest)
	resp, err := c.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: maxBatch, Value: &value}}, t.name)
	if err != nil {
		return err
	}
	_, err = resp.On(t.name, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

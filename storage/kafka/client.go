package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Client is a connection to the log with its topics in place. The changelog has a producer to itself:
// a broker answers the requests of a connection in turn, so dead letters and alerts on the same one
// would hold acknowledgements up (the first alert on each partition of Kafka costs it a flush to disk:
// 64 of them were seen to take 1.4 s). So have checkpoints: they must not share a request with what a
// full disk refuses.
type Client struct {
	cfg    Config
	topics Topics
	cl     *kgo.Client // produces the changelog, and answers admin requests
	points *kgo.Client // produces checkpoints
	side   *kgo.Client // produces everything else
	adm    *kadm.Client
	log    *Log // doppel.telemetry
	state  *Log // doppel.state
	ingest *Ingest
	out    *outbox
	once   sync.Once

	keep *cursors
	kick chan struct{}                               // retain has news
	rows atomic.Pointer[func(p int32) (int64, bool)] // nil: there is no store of rows

	pinging sync.Mutex
	ping    *ping // nil: none under way
}

// Open connects, makes the topics that are missing and refuses those that are wrong. It gives up when
// ctx ends, or after 30 s.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(cfg.connection(), cfg.producing()...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	side, err := kgo.NewClient(append(cfg.connection(), cfg.producing()...)...)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	points, err := kgo.NewClient(append(cfg.connection(), cfg.producing()...)...)
	if err != nil {
		cl.Close()
		side.Close()
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	c := &Client{cfg: cfg, topics: topicNames(cfg.TopicPrefix), cl: cl, points: points, side: side, adm: kadm.NewClient(cl), kick: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.ensureTopics(ctx); err != nil {
		c.disconnect()
		return nil, fmt.Errorf("kafka %v: %w", cfg.Brokers, err)
	}
	if err := c.openCursors(ctx); err != nil {
		c.disconnect()
		return nil, fmt.Errorf("kafka %v: %w", cfg.Brokers, err)
	}
	c.log, c.state, c.out = newLog(c, cl, c.topics.Telemetry), newLog(c, points, c.topics.State), newOutbox(c)
	c.ingest = newIngest(c)
	return c, nil
}

// Close stops the client. Records not acknowledged yet are answered with an error: their fate is
// unknown, as after a crash.
func (c *Client) Close() error {
	c.once.Do(func() {
		c.log.close()
		c.state.close()
		c.ingest.tails.close()
		c.disconnect()
		c.log.drained()
		c.state.drained()
	})
	return nil
}

func (c *Client) disconnect() {
	c.cl.Close()
	c.points.Close()
	c.side.Close()
}

// closeConsumer closes cl, which consumes those partitions. What metadata brings for the first time while a
// client closes, kgo begins to fetch, and closes its fetch session under it; but not what it has forgotten.
func closeConsumer(cl *kgo.Client, topic string, partitions []int32) {
	cl.RemoveConsumePartitions(map[string][]int32{topic: partitions})
	cl.Close()
}

// Ping returns nil if a broker answers before ctx ends. Its client goes on waiting for one that is
// silent, so whoever pings meanwhile waits for the same answer.
func (c *Client) Ping(ctx context.Context) error {
	c.pinging.Lock()
	p := c.ping
	if p == nil {
		p = &ping{done: make(chan struct{})}
		c.ping = p
		go func() {
			p.err = c.cl.Ping(context.WithoutCancel(ctx))
			c.pinging.Lock()
			c.ping = nil
			c.pinging.Unlock()
			close(p.done)
		}()
	}
	c.pinging.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("ping: %w", ctx.Err())
	}
}

// ping is one under way; err is set when done is closed.
type ping struct {
	done chan struct{}
	err  error
}

// Topics are the names of the topics.
func (c *Client) Topics() Topics { return c.topics }

// Partitions of ingest, telemetry, state and alerts.
func (c *Client) Partitions() int32 { return c.cfg.Partitions }

// Options connect another client to the same log: a group member, a reader.
func (c *Client) Options() []kgo.Opt { return c.cfg.connection() }

// Producer is the producing client, for records of other topics: its partitioner is manual.
func (c *Client) Producer() *kgo.Client { return c.side }

// Changelog is doppel.telemetry.
func (c *Client) Changelog() *Log { return c.log }

// State is doppel.state. It is produced beside the changelog, so that checkpoints hold nothing up.
func (c *Client) State() *Log { return c.state }

// Ingest is doppel.ingest.
func (c *Client) Ingest() *Ingest { return c.ingest }

// DeadLetters is doppel.dlq.
func (c *Client) DeadLetters() *DeadLetters { return &DeadLetters{out: c.out} }

// AlertLog is doppel.alerts.
func (c *Client) AlertLog() *AlertLog { return &AlertLog{out: c.out} }

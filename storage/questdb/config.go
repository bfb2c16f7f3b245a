package questdb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// Config of a Writer. The zero value of a field means its default.
type Config struct {
	// URL of QuestDB's HTTP port, with user and password if it asks for them.
	URL string
	// TLS applies to https; it is asked for every connection. Default: the system's roots.
	TLS func() *tls.Config
	// Node names this node in dead letters.
	Node string
	// MaxMetrics get columns of their own (200); each costs QuestDB about 17 MB a partition. The
	// rows of further metrics go to telemetry_long.
	MaxMetrics int
	// PartitionBy is HOUR, DAY (default), WEEK, MONTH or YEAR; it holds for tables yet to be made.
	PartitionBy string
	// TTL after which QuestDB drops a partition, a whole number of them; 0 keeps everything and
	// leaves a TTL set by hand alone. Only with HOUR, DAY and WEEK.
	TTL time.Duration
	// A flush happens when FlushRows (20,000) wait or the oldest waited FlushInterval (1 s). A
	// commit costs QuestDB as much as thousands of rows: both should be large.
	FlushRows     int
	FlushInterval time.Duration
	// QueueRows bounds the samples offered and not yet looked at (100,000), QueueBytes their size
	// (64 MiB). What finds no room is read from the log later.
	QueueRows  int
	QueueBytes int
	// Timeout of a request, beyond the time its bytes need at 100 KiB/s (10 s).
	Timeout time.Duration
	// RetryMin and RetryMax bound the pause after a failure (200 ms, 5 s).
	RetryMin, RetryMax time.Duration
	// Shared says that other nodes write the rows of other partitions: the Writer takes those that it is
	// told to Own, and finds and leaves their cursors in a store that all nodes share. Otherwise it takes
	// those of every partition.
	Shared bool
	// Oldest is the cursor at the first record that is kept of a partition's log, if somebody knows it;
	// nil: nobody. Without it, reading a log whose start was removed begins with the first Claim.
	Oldest func(p int32) (host.Cursor, bool)
	// Observe is told of each flush that QuestDB took.
	Observe func(rows int, took time.Duration)
}

// valuesPerRow bounds what one flush holds where samples have many metrics: FlushRows times this.
const valuesPerRow = 8

func (c Config) withDefaults() Config {
	set(&c.MaxMetrics, 200)
	set(&c.PartitionBy, "DAY")
	set(&c.FlushRows, 20_000)
	set(&c.FlushInterval, time.Second)
	set(&c.QueueRows, 100_000)
	set(&c.QueueBytes, 64<<20)
	set(&c.Timeout, 10*time.Second)
	set(&c.RetryMin, 200*time.Millisecond)
	set(&c.RetryMax, 5*time.Second)
	if c.Oldest == nil {
		c.Oldest = func(int32) (host.Cursor, bool) { return host.Cursor{}, false }
	}
	if c.Observe == nil {
		c.Observe = func(int, time.Duration) {}
	}
	return c
}

func set[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return fmt.Errorf("questdb url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("questdb url %s is not http://HOST:PORT or https://HOST:PORT", u.Redacted())
	case !slices.Contains([]string{"HOUR", "DAY", "WEEK", "MONTH", "YEAR"}, c.PartitionBy):
		return fmt.Errorf("partition by %q is not HOUR, DAY, WEEK, MONTH or YEAR", c.PartitionBy)
	case min(c.MaxMetrics, c.FlushRows, c.QueueRows, c.QueueBytes) < 0,
		min(c.TTL, c.FlushInterval, c.Timeout, c.RetryMin, c.RetryMax) < 0, c.RetryMin > c.RetryMax:
		return errors.New("limits, intervals and timeouts must not be negative, retries not shorter at most than at least")
	case c.TTL > 0:
		return c.validateTTL()
	}
	return nil
}

func (c Config) validateTTL() error {
	size, ok := map[string]time.Duration{"HOUR": time.Hour, "DAY": 24 * time.Hour, "WEEK": 7 * 24 * time.Hour}[c.PartitionBy]
	if !ok {
		return fmt.Errorf("a ttl needs partitions of HOUR, DAY or WEEK, not %s", c.PartitionBy)
	}
	if c.TTL%size != 0 {
		return fmt.Errorf("ttl %v is not a whole number of partitions of a %s", c.TTL, strings.ToLower(c.PartitionBy))
	}
	return nil
}

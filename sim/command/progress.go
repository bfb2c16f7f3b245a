package command

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/doppel-iot/doppel/sim/fleet"
)

// progress shows how a fleet gets on, once a second, and keeps the latencies of the whole run. One
// goroutine, ended by finish.
type progress struct {
	fleet   *fleet.Fleet
	out     io.Writer // nil: quiet
	start   time.Time
	cancel  context.CancelFunc
	done    sync.WaitGroup
	latency *hdrhistogram.Histogram
	last    fleet.Progress
	lastAt  time.Time
}

func startProgress(ctx context.Context, f *fleet.Fleet, out io.Writer) *progress {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	now := time.Now()
	p := &progress{fleet: f, out: out, start: now, lastAt: now, cancel: cancel, latency: hdrhistogram.New(1, 600e6, 2)}
	p.done.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				p.step(time.Now())
			}
		}
	})
	return p
}

func (p *progress) step(now time.Time) {
	s := p.fleet.Progress()
	p.latency.Merge(s.Latency)
	if p.out != nil {
		rate := float64(s.Acked-p.last.Acked) / now.Sub(p.lastAt).Seconds()
		_, _ = fmt.Fprintln(p.out, line(now.Sub(p.start), &s, rate)) // a lost progress line harms nobody
	}
	p.last, p.lastAt = s, now
}

// line is one progress line.
func line(elapsed time.Duration, s *fleet.Progress, rate float64) string {
	text := fmt.Sprintf("%4.0fs  sent %d  acked %d  %.0f/s  puback p50 %.1f p99 %.1f ms",
		elapsed.Seconds(), s.Sent, s.Acked, rate,
		float64(s.Latency.ValueAtQuantile(50))/1000, float64(s.Latency.ValueAtQuantile(99))/1000)
	if behind := time.Duration(s.Behind); behind > 100*time.Millisecond {
		text += fmt.Sprintf("  behind schedule by %v", behind.Round(10*time.Millisecond))
	}
	if s.Resent > 0 {
		text += fmt.Sprintf("  resent %d", s.Resent)
	}
	if s.Refusals > 0 {
		text += fmt.Sprintf("  refused %d times (reason 0x%02x)", s.Refusals, s.LastRefusal)
	}
	return text
}

// finish takes the last account.
func (p *progress) finish() fleet.Progress {
	p.cancel()
	p.done.Wait()
	p.step(time.Now())
	return p.last
}

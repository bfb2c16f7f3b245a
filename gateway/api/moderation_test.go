package api

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// TestModeration: it is on for most of the time where many calls come at their times, and hardly ever where callers
// wait for their answers, or few come.
func TestModeration(t *testing.T) {
	for name, tt := range map[string]struct {
		free, moderated float64 // calls a second
		least, most     float64 // share of the time that it is on
	}{
		"few":             {1000, 1000, 0, 0},
		"as they come":    {5000, 5000, 0.95, 0.995},
		"a little less":   {5000, 4200, 0.95, 0.995},
		"one that waits":  {3500, 800, 0, 0.03},
		"ten that wait":   {20_000, 9000, 0, 0.03},
		"many that wait":  {30_000, 29_000, 0.95, 0.995},
		"none for a time": {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var m moderation
			calls, on, total := 0.0, 0, 0
			now := time.Now().UnixNano()
			for range 100_000 { // 100 s
				rate := tt.free
				if m.look(now) {
					rate = tt.moderated
					on++
				}
				total++
				calls += rate / 1000
				m.calls.Store(uint64(calls))
				now += int64(time.Millisecond)
			}
			if share := float64(on) / float64(total); share < tt.least || share > tt.most {
				t.Errorf("on for %.3f of the time, want %v to %v", share, tt.least, tt.most)
			}
		})
	}
}

// TestModerationEnds: where calls stop coming it ends, whoever looks next, and begins again with them.
func TestModerationEnds(t *testing.T) {
	var m moderation
	now := time.Now().UnixNano()
	for range 1000 {
		m.calls.Add(5)
		m.look(now)
		now += int64(time.Millisecond)
	}
	if !m.look(now) {
		t.Fatal("5,000 calls a second and not on")
	}
	now += int64(time.Minute)
	if m.look(now) {
		t.Error("on after a minute without calls")
	}
	for range 2 * moderationWindow / time.Millisecond {
		m.calls.Add(5)
		now += int64(time.Millisecond)
		m.look(now)
	}
	if !m.look(now) {
		t.Error("the pause counted as harm")
	}
}

// TestModeratedCalls: calls are answered while connections are read by the tick, in both ways of reading, and what
// comes after a pause, too.
func TestModeratedCalls(t *testing.T) {
	w := newWorld(t, HubConfig{})
	force(&w.api.moderation)
	client := healthv1.NewHealthClient(w.conn)
	for round := range 3 {
		var calls sync.WaitGroup
		for range 200 {
			calls.Go(func() {
				if _, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		calls.Wait()
		time.Sleep(2 * patientTicks * readTick)
	}
}

// force has it on for good.
func force(m *moderation) {
	m.on.Store(true)
	m.until.Store(1 << 62)
}

// TestModeratedRead: bytes arrive whole and in order, and the end is told, whether or not reads are moderated.
func TestModeratedRead(t *testing.T) {
	for _, on := range []bool{false, true} {
		t.Run(strconv.FormatBool(on), func(t *testing.T) {
			m := new(moderation)
			if on {
				force(m)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			const text, times = "a line of text that comes again and again\n", 200
			go func() {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for i := range times {
					if _, err := io.WriteString(c, text); err != nil {
						t.Error(err)
					}
					if i%50 == 0 {
						time.Sleep(2 * patientTicks * readTick)
					}
				}
			}()
			nc, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			c, _, err := moderatedCredentials{insecure.NewCredentials(), m}.ServerHandshake(nc)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || len(got) != len(text)*times {
				t.Fatalf("%d bytes, %v, want %d", len(got), err, len(text)*times)
			}
			for i := range times {
				if line := string(got[i*len(text) : (i+1)*len(text)]); line != text {
					t.Fatalf("line %d is %q", i, line)
				}
			}
		})
	}
}

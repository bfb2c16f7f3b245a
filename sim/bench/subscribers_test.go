package bench

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// BenchmarkWatchAlerts has 1,000 subscribers wait for transitions of a node with 100,000 twins and 10,000 messages a
// second, and measures from the publishing of a device's last will to each of them.
func BenchmarkWatchAlerts(b *testing.B) {
	const subscribers, transitions = 1_000, 50
	for b.Loop() {
		n := startNode(b, b.TempDir())
		ready, wait := n.load(90 * time.Second)
		ready()
		conns := n.dial(10)
		var mu sync.Mutex
		published := make(map[string]time.Time)
		var took []time.Duration
		var open, ended sync.WaitGroup
		ctx, cancel := context.WithCancel(b.Context())
		open.Add(subscribers)
		for i := range subscribers {
			ended.Go(func() {
				s, err := doppelv1.NewAlertServiceClient(conns[i%len(conns)]).WatchAlerts(ctx, &doppelv1.WatchAlertsRequest{Filter: `device.startsWith("probe-")`})
				for opened := false; err == nil; {
					var m *doppelv1.WatchAlertsResponse
					if m, err = s.Recv(); err != nil {
						break
					}
					if m.GetSnapshotDone() != nil && !opened {
						opened = true
						open.Done()
					}
					if m.GetTransition() != nil {
						now := time.Now()
						mu.Lock()
						if at, ok := published[m.GetTransition().GetDevice()]; ok {
							took = append(took, now.Sub(at))
						}
						mu.Unlock()
					}
				}
			})
		}
		open.Wait()
		saved := n.profile("watch-alerts", 20*time.Second)
		c := connect(b, n.addrs.MQTT)
		for i := range transitions {
			device := fmt.Sprintf("probe-%03d", i)
			tell(b, c, device, `{"online":true,"session":1}`)
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			published[device] = time.Now()
			mu.Unlock()
			tell(b, c, device, `{"online":false,"session":1}`)
			time.Sleep(200 * time.Millisecond)
		}
		want := subscribers * transitions
		if err := eventually(20*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(took) >= want }); err != nil {
			b.Errorf("%d of %d transitions: %v", len(took), want, err)
		}
		saved()
		cancel()
		ended.Wait()
		slices.Sort(took)
		b.ReportMetric(percentile(took, 0.5), "p50-ms")
		b.ReportMetric(percentile(took, 0.99), "p99-ms")
		b.ReportMetric(percentile(took, 1), "max-ms")
		b.ReportMetric(wait().LatencyMS.Puback.P99, "puback-p99-ms")
		b.ReportMetric(0, "ns/op")
		n.stop()
	}
}

// connect is a device that speaks for others.
func connect(b *testing.B, addr string) *paho.Client {
	b.Helper()
	conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := c.Connect(b.Context(), &paho.Connect{ClientID: unique("probe"), KeepAlive: 60, CleanStart: true}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) })
	return c
}

func tell(b *testing.B, c *paho.Client, device, status string) {
	b.Helper()
	if _, err := c.Publish(b.Context(), &paho.Publish{Topic: "devices/" + device + "/status", QoS: 1, Payload: []byte(status)}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWatchTwins has 10,000 subscribers of one twin each, of a node with 100,000 twins and 10,000 messages a second:
// what they cost it, and what they do to the messages.
func BenchmarkWatchTwins(b *testing.B) {
	const subscribers, length = 10_000, 20 * time.Second
	for b.Loop() {
		n := startNode(b, b.TempDir())
		ready, wait := n.load(120 * time.Second)
		ready()
		ids := n.ids()
		rss, _ := n.memory()
		idle := n.cpu()
		time.Sleep(length)
		idle = n.cpu() - idle

		conns := n.dial(20)
		var open, ended sync.WaitGroup
		var changes atomic.Int64
		ctx, cancel := context.WithCancel(b.Context())
		open.Add(subscribers)
		for i := range subscribers {
			ended.Go(func() {
				s, err := doppelv1.NewTwinServiceClient(conns[i%len(conns)]).WatchTwins(ctx, &doppelv1.WatchTwinsRequest{Ids: []string{ids[i%len(ids)]}})
				for opened := false; err == nil; {
					var m *doppelv1.WatchTwinsResponse
					if m, err = s.Recv(); err != nil {
						break
					}
					if m.GetSnapshotDone() != nil && !opened {
						opened = true
						open.Done()
					}
					if m.GetChanged() != nil {
						changes.Add(1)
					}
				}
			})
		}
		open.Wait()
		with, _ := n.memory()
		saved := n.profile("watch-twins", length)
		before, busy := changes.Load(), n.cpu()
		time.Sleep(length)
		busy, before = n.cpu()-busy, changes.Load()-before
		saved()
		cancel()
		ended.Wait()
		b.ReportMetric(float64(busy-idle)*microsecond/float64(max(1, before)), "cpu-µs/change")
		b.ReportMetric(float64(before)/length.Seconds(), "changes/s")
		b.ReportMetric((with-rss)/subscribers/1024, "KiB/subscriber")
		b.ReportMetric(wait().LatencyMS.Puback.P99, "puback-p99-ms")
		b.ReportMetric(0, "ns/op")
		n.stop()
	}
}

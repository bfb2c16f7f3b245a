package fault

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// blinkers are devices that only come and go, so that alerts fire and resolve all the time: those of
// telemetry need half a minute of it first.
type blinkers struct {
	stop context.CancelFunc
	done chan struct{}
	sent int
	err  error // of the last attempt, if nothing ever went
}

const (
	blinkerCount = 40
	blinkerEvery = 60 * time.Millisecond // a message of one of them
)

// startBlinkers begins to send to a broker, until end.
func startBlinkers(ctx context.Context, broker string) *blinkers {
	ctx, stop := context.WithCancel(ctx)
	b := &blinkers{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		for ctx.Err() == nil {
			b.err = b.connected(ctx, strings.TrimPrefix(broker, "mqtt://"))
			sleep(ctx, 100*time.Millisecond)
		}
	}()
	return b
}

// connected sends over one connection while it holds. What was not acknowledged is sent again: the session's
// number tells it apart.
func (b *blinkers) connected(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("blinkers: %w", err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "blinkers", CleanStart: true, KeepAlive: 30}); err != nil {
		return fmt.Errorf("blinkers: %w", err)
	}
	defer func() { _ = c.Disconnect(&paho.Disconnect{}) }()
	for ctx.Err() == nil {
		device, turn := b.sent%blinkerCount, b.sent/blinkerCount
		status := fmt.Sprintf(`{"online":%t,"boot":1,"session":%d}`, turn%2 == 0, turn+1)
		p := &paho.Publish{Topic: fmt.Sprintf("devices/blinker-%02d/status", device+1), QoS: 1, Payload: []byte(status)}
		if _, err := c.Publish(ctx, p); err != nil {
			return fmt.Errorf("blinkers: %w", err)
		}
		b.sent++
		sleep(ctx, blinkerEvery)
	}
	return nil
}

// end stops sending.
func (b *blinkers) end() {
	b.stop()
	<-b.done
}

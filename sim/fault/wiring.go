package fault

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// wiring is the network of a cluster: whatever a node says to Kafka, to the broker or to another node
// passes it, each pair and each direction by itself.
type wiring interface {
	// disturb sets what happens to what from sends to to, until it is set again.
	disturb(from, to Subject, d disturbance)
	close()
}

// disturbance is what happens on the way; the zero value: nothing.
type disturbance struct {
	loss  float64 // share that is lost; 1: all of it
	delay time.Duration
}

// Between is the link between two parties of a cluster.
func Between(a, b Subject) Subject { return a + "/" + b }

// cable is such a link, under one fault at a time.
type cable struct {
	a, b   Subject
	wiring wiring
	fault  sync.Mutex
}

// What a disturbed direction is like.
const (
	lossShare = 0.3
	slowBy    = 150 * time.Millisecond
)

// disturbances are what a kind of fault does to both directions, a to b first.
func disturbances(k Kind) (up, down disturbance, err error) {
	dead, lossy, slow := disturbance{loss: 1}, disturbance{loss: lossShare}, disturbance{delay: slowBy}
	none := disturbance{}
	switch k {
	case Stall:
		return dead, dead, nil
	case StallUp:
		return dead, none, nil
	case StallDown:
		return none, dead, nil
	case LossUp:
		return lossy, none, nil
	case LossDown:
		return none, lossy, nil
	case DelayUp:
		return slow, none, nil
	case DelayDown:
		return none, slow, nil
	default:
		return none, none, fmt.Errorf("%s does not happen to links of a cluster", k)
	}
}

// strike lets a fault happen to the link, and heals it.
func (c *cable) strike(ctx context.Context, f Fault) error {
	c.fault.Lock()
	defer c.fault.Unlock()
	up, down, err := disturbances(f.Kind)
	if err != nil {
		return err
	}
	c.wiring.disturb(c.a, c.b, up)
	c.wiring.disturb(c.b, c.a, down)
	sleep(ctx, f.For)
	c.wiring.disturb(c.a, c.b, disturbance{})
	c.wiring.disturb(c.b, c.a, disturbance{})
	return nil
}

package mqtt

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/twin"
)

const (
	// rejectEvery is how often a device is told at most.
	rejectEvery = time.Second
	// rejectSlots bounds the memory of the limit. Devices that share a slot share its limit.
	rejectSlots = 1 << 16
	// rejectQueue bounds what waits for the network; more is not said.
	rejectQueue = 256
	// rejectTimeout bounds one publish.
	rejectTimeout = 5 * time.Second
)

// rejects publishes {root}/{device}/rejected with QoS 0, at most one a second for a device, and
// never keeps anybody waiting.
type rejects struct {
	publisher Publisher
	topics    topics
	stats     *Stats
	queue     chan rejection
	seed      maphash.Seed

	mu   sync.Mutex
	last [rejectSlots]int64 // unix nanoseconds
}

type rejection struct {
	device string
	Reason twin.Reason `json:"reason"`
	Detail string      `json:"detail"`
}

func newRejects(p Publisher, t topics, stats *Stats) *rejects {
	return &rejects{publisher: p, topics: t, stats: stats, queue: make(chan rejection, rejectQueue), seed: maphash.MakeSeed()}
}

// Rejected implements [Rejecter].
func (r *rejects) Rejected(device string, reason twin.Reason, detail string) {
	if checkDevice([]byte(device)) != "" || !r.allow(device) {
		r.stats.Unsaid.Add(1)
		return
	}
	select {
	case r.queue <- rejection{device: device, Reason: reason, Detail: detail}:
	default:
		r.stats.Unsaid.Add(1)
	}
}

func (r *rejects) allow(device string) bool {
	slot := maphash.String(r.seed, device) % rejectSlots
	now := time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now-r.last[slot] < int64(rejectEvery) {
		return false
	}
	r.last[slot] = now
	return true
}

// run publishes until ctx ends.
func (r *rejects) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case rej := <-r.queue:
			r.publish(ctx, rej)
		}
	}
}

func (r *rejects) publish(ctx context.Context, rej rejection) {
	payload, err := json.Marshal(rej)
	if err == nil {
		bound, cancel := context.WithTimeout(ctx, rejectTimeout)
		defer cancel()
		props := &Properties{ContentType: "application/json"}
		err = r.publisher.Publish(bound, r.topics.rejected(rej.device), 0, false, payload, props)
	}
	if err != nil {
		r.stats.Unsaid.Add(1)
		return
	}
	r.stats.Rejections.Add(1)
}

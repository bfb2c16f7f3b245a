package fault

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// subscriber watches alerts as an operator's program does: at one node, and when that falls silent or
// breaks off at the next, from where it was.
type subscriber struct {
	name  string
	nodes []*live
	first int // the node it begins with

	mu    sync.Mutex // guards what follows
	heard heard
}

// heard is what a subscriber was told.
type heard struct {
	stories map[string][]*doppelv1.Alert // transitions by device, in order of arrival
	count   int
	gaps    int // it was told that it might have missed some
	again   int // it went on elsewhere
}

const (
	// subscriberBeat is how often a subscriber asks for a sign of life, and subscriberLimit how long it waits
	// for one.
	subscriberBeat  = time.Second
	subscriberLimit = 4 * time.Second
	subscriberRetry = 100 * time.Millisecond
)

// run watches until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	for at, token := s.first, ""; ctx.Err() == nil; at++ {
		token = s.listen(ctx, s.nodes[at%len(s.nodes)], token)
		s.mu.Lock()
		s.heard.again++
		s.mu.Unlock()
		sleep(ctx, subscriberRetry)
	}
}

// listen watches at one node from a token on, and gives the last token it got.
func (s *subscriber) listen(ctx context.Context, at *live, token string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(subscriberLimit, cancel)
	defer silence.Stop()
	stream, err := doppelv1.NewAlertServiceClient(at.conn).WatchAlerts(ctx, &doppelv1.WatchAlertsRequest{
		IncludePending: true, ResumeToken: token, Heartbeat: durationpb.New(subscriberBeat),
	})
	if err != nil {
		return token
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return token
		}
		silence.Reset(subscriberLimit)
		s.take(m)
		if m.GetResumeToken() != "" {
			token = m.GetResumeToken()
		}
	}
}

func (s *subscriber) take(m *doppelv1.WatchAlertsResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.GetGap() != nil {
		s.heard.gaps++
	}
	if a := m.GetTransition(); a != nil {
		s.heard.stories[a.GetDevice()] = append(s.heard.stories[a.GetDevice()], a)
		s.heard.count++
	}
}

// so is what it has heard so far.
func (s *subscriber) so() heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heard
	h.stories = make(map[string][]*doppelv1.Alert, len(s.heard.stories))
	for id, story := range s.heard.stories {
		h.stories[id] = slices.Clip(story)
	}
	return h
}

// audience is several subscribers, beginning at different nodes.
type audience struct {
	members []*subscriber
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newAudience(ctx context.Context, nodes []*live, n int) *audience {
	ctx, stop := context.WithCancel(ctx)
	a := &audience{stop: stop}
	for i := range n {
		s := &subscriber{name: fmt.Sprintf("subscriber %d", i+1), nodes: nodes, first: i}
		s.heard.stories = make(map[string][]*doppelv1.Alert)
		a.members = append(a.members, s)
		a.running.Go(func() { s.run(ctx) })
	}
	return a
}

func (a *audience) close() {
	a.stop()
	a.running.Wait()
}

package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// others are other nodes that do what a test says.
type others struct {
	following chan struct{} // closed when they are followed
	changed   func([]string)
	lost      func(string)
	open      chan struct{} // closed by the test
	ended     chan struct{}
}

func newOthers() *others {
	return &others{following: make(chan struct{}), open: make(chan struct{}), ended: make(chan struct{})}
}

// FollowChanges implements Others, once.
func (o *others) FollowChanges(ctx context.Context, opened func(), changed func([]string), lost func(string)) {
	defer close(o.ended)
	o.changed, o.lost = changed, lost
	close(o.following)
	select {
	case <-o.open:
		opened()
	case <-ctx.Done():
	}
	<-ctx.Done()
}

// TestOthersAreWatched: a snapshot waits until the others tell their changes; what they lose is a gap
// and a fresh snapshot; they are followed no longer than anybody watches.
func TestOthersAreWatched(t *testing.T) {
	o := newOthers()
	w := newWorld(t, HubConfig{Others: o, Linger: time.Millisecond})
	w.Put(apitest.Twin("a", 1))
	all, one := w.watchTwins(t, &doppelv1.WatchTwinsRequest{}), w.watchTwins(t, &doppelv1.WatchTwinsRequest{Ids: []string{"a"}})
	<-o.following
	w.Put(apitest.Twin("b", 1)) // before the snapshot, so only there
	close(o.open)
	if ids, _ := all.snapshot(); len(ids) != 2 {
		t.Errorf("got %v, want a and b", ids)
	}
	one.snapshot()
	o.changed([]string{"a"})
	for _, s := range []*twinStream{all, one} {
		if m := s.next(); m.GetChanged().GetId() != "a" {
			t.Errorf("got %v, want a changed", m)
		}
	}
	o.lost("node n2 went away")
	for _, s := range []*twinStream{all, one} {
		if m := s.next(); m.GetGap().GetReason() != "node n2 went away" {
			t.Errorf("got %v, want a gap", m)
		}
		s.snapshot()
	}
	for _, s := range []*twinStream{all, one} {
		s.stop()
		<-s.err
	}
	select {
	case <-o.ended:
	case <-time.After(10 * time.Second):
		t.Error("they are followed though nobody watches")
	}
}

// TestFollowChangesTellsOnlyItsOwn: what another node told is not told on; a place leads to where it was.
func TestFollowChangesTellsOnlyItsOwn(t *testing.T) {
	o := newOthers()
	close(o.open)
	w := newWorld(t, HubConfig{Others: o})
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{})
	s.snapshot()
	type told struct {
		incarnation, seq uint64
		ids              []string
		anew             bool
	}
	follow := func(incarnation, seq uint64) (chan told, func()) {
		out := make(chan told, 100)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = w.hub.FollowChanges(ctx, incarnation, seq, func(incarnation, seq uint64, ids []string, anew bool) error {
				out <- told{incarnation, seq, ids, anew}
				return nil
			})
		}()
		return out, func() { cancel(); <-ended }
	}
	out, stop := follow(0, 0)
	first := <-out
	if !first.anew || first.ids != nil {
		t.Errorf("at first: %v, want a place and nothing else", first)
	}
	o.changed([]string{"theirs"})
	w.Put(apitest.Twin("ours", 1))
	m := <-out
	want(t, m.ids, []string{"ours"})
	stop()
	w.Put(apitest.Twin("meanwhile", 1))
	out, stop = follow(m.incarnation, m.seq)
	if m := <-out; m.anew {
		t.Errorf("it does not go on: %v", m)
	}
	want(t, (<-out).ids, []string{"meanwhile"})
	stop()
	for name, place := range map[string][2]uint64{"another life": {m.incarnation + 2, m.seq}, "the future": {m.incarnation, 1 << 40}} {
		out, stop = follow(place[0], place[1])
		if m := <-out; !m.anew {
			t.Errorf("%s: it goes on: %v", name, m)
		}
		stop()
	}
}

// TestWatchOutlastsAMove: a change of a twin that cannot be read just then comes later, and no token
// passes it over.
func TestWatchOutlastsAMove(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{Heartbeat: durationpb.New(time.Second)})
	s.snapshot()
	w.Fail(fmt.Errorf("partition 3: %w", host.ErrUnavailable))
	w.Put(apitest.Twin("a", 2))
	var token string
	select { // it lives on meanwhile
	case m := <-s.msgs:
		if token = m.GetResumeToken(); m.GetHeartbeat() == nil {
			t.Fatalf("got %v, want a heartbeat", m)
		}
	case err := <-s.err:
		t.Fatalf("watch ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no heartbeat")
	}
	w.Fail(nil)
	if m := s.next(); m.GetChanged().GetSeq() != 2 {
		t.Errorf("got %v, want a at 2", m)
	}
	if m := w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: token}).next(); m.GetChanged().GetSeq() != 2 {
		t.Errorf("resumed: got %v, want a at 2", m)
	}
}

// TestGapWaitsForItsSnapshot: a gap is told at once, its snapshot comes when all twins can be read.
func TestGapWaitsForItsSnapshot(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	w.Fail(host.ErrUnavailable)
	s := w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: twinsPlace{incarnation: 2, seq: 1}.token()})
	m := s.next()
	if m.GetGap() == nil {
		t.Fatalf("got %v, want a gap", m)
	}
	w.Fail(nil)
	if ids, _ := s.snapshot(); len(ids) != 1 {
		t.Errorf("got %v, want a", ids)
	}
	// Who was lost in between gets all of it.
	if ids, _ := w.watchTwins(t, &doppelv1.WatchTwinsRequest{ResumeToken: m.GetResumeToken()}).snapshot(); len(ids) != 1 {
		t.Errorf("got %v, want a", ids)
	}
}

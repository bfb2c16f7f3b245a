package host

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
)

// broker is Devices: what is retained on each topic, and whether it takes anything.
type broker struct {
	mu       sync.Mutex
	retained map[string]string
	told     int
	down     bool
}

var errBrokerDown = errors.New("the broker is down")

// Desired implements Devices.
func (b *broker) Desired(device string, payload []byte, done func(error)) {
	go func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.down {
			done(errBrokerDown)
			return
		}
		if b.retained == nil {
			b.retained = make(map[string]string)
		}
		b.told++
		if b.retained[device] = string(payload); payload == nil {
			delete(b.retained, device)
		}
		done(nil)
	}()
}

func (b *broker) set(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

func (b *broker) check(t *testing.T, name string, want map[string]string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := gocmp.Diff(want, b.retained); diff != "" {
		t.Errorf("%s: retained (-want +got):\n%s", name, diff)
	}
}

func status(r Reply, device, payload string) Message {
	return Message{Kind: Status, Device: []byte(device), Payload: []byte(payload), ReceivedAt: time.Now().UnixNano(), Reply: r, Topic: "devices"}
}

func reported(r Reply, device, payload string) Message {
	m := status(r, device, payload)
	m.Kind = Reported
	return m
}

// TestUpdate: what people want of a device is durable when it is answered, and told to the device; so is what it
// lacks of it.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPlant(), &broker{}
		h := p.host(t, func(c *Config) { c.Devices = b })
		h.Own(0)
		synctest.Wait()
		ctx := t.Context()
		if _, err := h.Update(ctx, 0, Update{Device: "d", Tags: map[string]string{"site": "brno"}}); !errors.Is(err, ErrUnknownDevice) {
			t.Errorf("no such device: %v", err)
		}
		if _, err := h.Update(ctx, 0, Update{Device: "d", Etag: "0011223344556677", AllowMissing: true}); !errors.Is(err, ErrConflict) {
			t.Errorf("an etag of a device that is not there: %v", err)
		}
		first, err := h.Update(ctx, 0, Update{Device: "d", AllowMissing: true, Desired: []byte(`{"rate":10}`), Tags: map[string]string{"site": "brno"}})
		if err != nil {
			t.Fatal(err)
		}
		if first.GetDesiredVersion() != 1 || first.GetTagsVersion() != 1 || first.GetTags()["site"] != "brno" ||
			first.GetDelta().GetFields()["rate"].GetNumberValue() != 10 || first.GetDivergeTime() == nil {
			t.Errorf("made: %v", first)
		}
		b.check(t, "made", map[string]string{"d": `{"version":1,"desired":{"rate":10},"delta":{"rate":10}}`})
		records := len(p.log.all())
		same, err := h.Update(ctx, 0, Update{Device: "d", Desired: []byte(`{"rate":10}`), Etag: first.GetEtag()})
		if err != nil || same.GetVersion() != first.GetVersion() || same.GetEtag() != first.GetEtag() || len(p.log.all()) != records {
			t.Errorf("nothing changed: %v, %v, %d records", err, same, len(p.log.all())-records)
		}
		var r replies
		time.Sleep(time.Second)
		offer(t, h, sample(&r, "d", 1), reported(&r, "d", `{"rate":10}`))
		b.check(t, "reported", map[string]string{"d": `{"version":1,"desired":{"rate":10},"delta":{}}`})
		tw, err := h.Twin(ctx, 0, "d")
		if err != nil || tw.GetConvergence().AsDuration() != time.Second || tw.GetDivergeTime() != nil || tw.GetEtag() != first.GetEtag() {
			t.Errorf("converged: %v, %v", err, tw)
		}
		next, err := h.Update(ctx, 0, Update{Device: "d", Etag: first.GetEtag(), Desired: []byte(`{"rate":20}`), RemovedTags: []string{"site"}})
		if err != nil || next.GetEtag() == first.GetEtag() || next.GetDesiredVersion() != 2 || len(next.GetTags()) != 0 {
			t.Errorf("changed: %v, %v", err, next)
		}
		records = len(p.log.all())
		if _, err := h.Update(ctx, 0, Update{Device: "d", Etag: first.GetEtag(), Desired: []byte(`{"rate":30}`)}); !errors.Is(err, ErrConflict) {
			t.Errorf("an old etag: %v", err)
		}
		for field, u := range map[string]Update{
			"desired": {Device: "d", Desired: []byte(`{"a":"` + strings.Repeat("x", 32<<10) + `"}`)},
			"tags":    {Device: "d", Tags: map[string]string{"": "x"}},
		} {
			_, err := h.Update(ctx, 0, u)
			if bad, ok := errors.AsType[*InvalidError](err); !ok || bad.Field != field {
				t.Errorf("%s: %v", field, err)
			}
		}
		if got := len(p.log.all()); got != records {
			t.Errorf("%d records of what was refused", got-records)
		}
		b.check(t, "changed", map[string]string{"d": `{"version":2,"desired":{"rate":20},"delta":{"rate":20}}`})
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := h.Update(gone, 0, Update{Device: "d", Desired: []byte(`{}`)}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if replay, err := h.Replay(ctx, 0, "d"); err != nil || !replay.Equal {
			t.Errorf("replay: %v, %+v", err, replay)
		}
		if err := h.Release(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Update(ctx, 0, Update{Device: "d"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("not served: %v", err)
		}
	})
}

// TestDelete: a deleted twin is gone for everybody, its former samples do not bring it back, and a new one does.
func TestDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPlant(), &broker{}
		p.rules(t)
		h := p.host(t, func(c *Config) { c.Devices, c.Rules, c.PassivateAfter = b, p.set, time.Minute })
		h.Own(0)
		synctest.Wait()
		ctx := t.Context()
		var r replies
		hot := sample(&r, "d", 2)
		hot.Payload = []byte(`{"boot":1,"seq":2,"metrics":{"t":99}}`)
		offer(t, h, sample(&r, "d", 1), hot, sample(&r, "e", 1))
		alive, err := h.Update(ctx, 0, Update{Device: "d", Desired: []byte(`{"rate":10}`)})
		if err != nil || len(alive.GetOpenAlerts()) != 1 {
			t.Fatalf("%v, %v", err, alive)
		}
		if err := h.Delete(ctx, 0, "d", "0000000000000000"); !errors.Is(err, ErrConflict) {
			t.Errorf("an old etag: %v", err)
		}
		if err := h.Delete(ctx, 0, "d", alive.GetEtag()); err != nil {
			t.Fatal(err)
		}
		absent := func(name string) {
			t.Helper()
			if _, err := h.Twin(ctx, 0, "d"); !errors.Is(err, ErrUnknownDevice) {
				t.Errorf("%s: twin: %v", name, err)
			}
			ids, err := h.Devices(ctx, 0)
			if err != nil || len(ids) != 1 || ids[0] != "e" {
				t.Errorf("%s: devices %v, %v", name, ids, err)
			}
			time.Sleep(100 * time.Millisecond)
			if v := h.Partition(0); v.Twins != 1 {
				t.Errorf("%s: the view has %+v", name, v)
			}
			for what, err := range map[string]error{"delete": h.Delete(ctx, 0, "d", ""), "reset": h.Reset(ctx, 0, "d")} {
				if !errors.Is(err, ErrUnknownDevice) {
					t.Errorf("%s: %s: %v", name, what, err)
				}
			}
			if _, err := h.TwinAsOf(ctx, 0, "d", AsOf{Time: time.Now().UnixNano()}); !errors.Is(err, ErrUnknownDevice) {
				t.Errorf("%s: as of now: %v", name, err)
			}
			if past, err := h.TwinAsOf(ctx, 0, "d", AsOf{Version: alive.GetVersion()}); err != nil || past.GetDigest() != alive.GetDigest() {
				t.Errorf("%s: as of its last version: %v, %v", name, past, err)
			}
		}
		absent("deleted")
		b.check(t, "deleted", map[string]string{})
		alerts, err := h.Alerts(ctx, 0)
		if err != nil || len(alerts) != 1 || alerts[0].GetResolveTime() == nil {
			t.Errorf("alerts: %v, %v", err, alerts)
		}
		offer(t, h, sample(&r, "d", 1), hot)
		absent("redelivered")
		time.Sleep(5 * time.Minute)
		if v := h.Partition(0); v.Passive != 1 || len(p.log.all()) == 0 {
			t.Errorf("the twin that is left is not passive: %+v", v)
		}
		absent("passive")

		if err := h.Release(ctx, 0); err != nil {
			t.Fatal(err)
		}
		h = p.host(t, func(c *Config) { c.Devices, c.Rules = b, p.set })
		h.Own(0)
		synctest.Wait()
		absent("restored")
		offer(t, h, sample(&r, "d", 1))
		absent("redelivered to the next owner")
		offer(t, h, sample(&r, "d", 3))
		tw, err := h.Twin(ctx, 0, "d")
		if err != nil || tw.GetCounters().GetApplied() != 1 || tw.GetVersion() <= alive.GetVersion() || tw.GetSeq() != 3 ||
			tw.GetDesired() != nil || tw.GetDigest() == 0 || tw.GetDigest() != tw.GetSetDigest() {
			t.Errorf("revived: %v, %v", err, tw)
		}
		check, err := h.Check(ctx, 0)
		if err != nil || check.Difference != "" || check.Rows["d"] != 3 {
			t.Errorf("check: %v, %+v", err, check)
		}
		if replay, err := h.Replay(ctx, 0, "d"); err != nil || !replay.Equal {
			t.Errorf("replay: %v, %+v", err, replay)
		}
		if err := h.Release(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if n := h.Stats().ReplayDifferences.Load(); n != 0 {
			t.Errorf("%d replay differences", n)
		}
	})
}

// TestDeletedIsForgotten: after a day the numbering is forgotten, and the device may begin anew.
func TestDeletedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, func(c *Config) { c.PassivateAfter = time.Minute })
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1))
		if err := h.Delete(t.Context(), 0, "d", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		offer(t, h, sample(&r, "d", 1))
		if _, err := h.Twin(t.Context(), 0, "d"); !errors.Is(err, ErrUnknownDevice) {
			t.Errorf("within a day: %v", err)
		}
		time.Sleep(2 * time.Hour)
		offer(t, h, sample(&r, "d", 1))
		if tw, err := h.Twin(t.Context(), 0, "d"); err != nil || tw.GetCounters().GetApplied() != 1 {
			t.Errorf("after a day: %v, %v", err, tw)
		}
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTellSurvives: what a device has to be told is told by the next owner, if the one that logged it could not.
func TestTellSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPlant(), &broker{down: true}
		h := p.host(t, func(c *Config) { c.Devices = b })
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "e", 1))
		for _, v := range []string{`{"rate":1}`, `{"rate":2}`, `{"rate":3}`} {
			for _, device := range []string{"d", "e"} {
				if _, err := h.Update(t.Context(), 0, Update{Device: device, AllowMissing: true, Desired: []byte(v)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := h.Delete(t.Context(), 0, "e", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute) // checkpoints and floors do not cover it
		b.check(t, "down", nil)
		h.Drop(0)
		time.Sleep(time.Second)
		b.set(false)
		next := p.host(t, func(c *Config) { c.Devices = b })
		next.Own(0)
		time.Sleep(time.Second)
		want := map[string]string{"d": `{"version":3,"desired":{"rate":3},"delta":{"rate":3}}`}
		b.check(t, "up", want)
		offer(t, next, status(&r, "d", `{"online":true,"boot":1,"session":1}`))
		told := b.told
		offer(t, next, status(&r, "d", `{"online":true,"boot":1,"session":1}`))
		if b.told != told {
			t.Error("a status that says nothing new had the device told")
		}
		offer(t, next, status(&r, "d", `{"online":true,"boot":1,"session":2}`))
		if b.told != told+1 {
			t.Errorf("told %d times when the device is back, want 1", b.told-told)
		}
		b.set(true)
		if _, err := next.Update(t.Context(), 0, Update{Device: "d", Desired: []byte(`{"rate":4}`)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.set(false)
		time.Sleep(2 * time.Second)
		want["d"] = `{"version":4,"desired":{"rate":4},"delta":{"rate":4}}`
		b.check(t, "tried again", want)
		if err := next.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		// A broker that has forgotten everything is told all of it.
		b = &broker{}
		last := p.host(t, func(c *Config) { c.Devices, c.DesiredAnew = b, true })
		last.Own(0)
		time.Sleep(time.Second)
		b.check(t, "anew", want)
		if err := last.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTellingsGivenUp: a device that the broker never lets us tell anything does not hold the floor for ever, and is told
// when the broker has changed its mind.
func TestTellingsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPlant(), &broker{down: true}
		h := p.host(t, func(c *Config) { c.Devices = b })
		h.Own(0)
		synctest.Wait()
		var r replies
		if _, err := h.Update(t.Context(), 0, Update{Device: "d", AllowMissing: true, Desired: []byte(`{"rate":1}`)}); err != nil {
			t.Fatal(err)
		}
		seq := 0
		floorAfter := func(d time.Duration) (start, end int64) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
				seq++
				offer(t, h, sample(&r, "e", seq))
			}
			_, end, _ = p.log.Bounds(t.Context(), 0)
			for _, rec := range p.state.all() {
				if string(rec.Key) == codec.FloorKey {
					f, err := codec.DecodeFloor(rec.Value)
					if err != nil {
						t.Fatal(err)
					}
					start = f.Start.Next
				}
			}
			return start, end
		}
		if start, end := floorAfter(30 * time.Minute); start > 2 {
			t.Errorf("the floor starts at %d of %d, and what is at 1 was not told", start, end)
		}
		if start, end := floorAfter(time.Hour); start < end-100 {
			t.Errorf("the floor starts at %d of %d although nobody can be told", start, end)
		}
		b.set(false)
		time.Sleep(2 * time.Second)
		b.check(t, "told at last", map[string]string{"d": `{"version":1,"desired":{"rate":1},"delta":{"rate":1}}`})
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// rules are of a plant whose hosts mind heat.
func (p *plant) rules(tb testing.TB) {
	tb.Helper()
	set, err := alert.NewSet([]alert.Rule{{
		ID: "hot", Kind: alert.Threshold, Metric: "t", Levels: []alert.Level{{Severity: alert.Warning, Enter: 50, Exit: 40, Op: ">"}},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	p.set = set
}

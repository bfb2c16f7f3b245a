package alert

import (
	"testing"
	"time"
)

// TestReview: rules that have just come in force end alerts, begin them and change when time is up, once; looking
// whether they would changes nothing.
func TestReview(t *testing.T) {
	warn := []Level{{Severity: Warning}}
	set := func(rules ...Rule) *Set {
		s, err := NewSet(rules)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const second = int64(time.Second)
	offline := Rule{ID: "gone", Kind: Offline, Levels: warn}
	stale := Rule{ID: "quiet", Kind: Stale, ForDuration: 5 * time.Second, Levels: warn}
	shadow := offline
	shadow.Mode = ModeShadow
	for name, tt := range map[string]struct {
		before, after *Set
		concerned     bool
		transitions   int
	}{
		"the same":            {set(offline), set(offline), false, 0},
		"a rule ends":         {set(offline), set(), true, 1},
		"a rule begins":       {set(), set(offline), true, 1},
		"into shadow":         {set(offline), set(shadow), true, 2}, // ends, and begins in shadow
		"out of shadow":       {set(shadow), set(offline), true, 1},
		"of another device":   {set(), set(Rule{ID: "gone", Kind: Offline, Device: "x", Levels: warn}), false, 0},
		"silence is too long": {set(), set(stale), true, 1},
		"silence may last":    {set(), set(Rule{ID: "quiet", Kind: Stale, ForDuration: time.Minute, Levels: warn}), true, 0},
	} {
		var b Book
		var emit []Alert
		b.Seen(tt.before, "d", second, &emit)
		b.Presence(tt.before, "d", false, 2*second, &emit)
		memory := string(b.Encode(nil, 0))
		now := 10 * second
		if got := b.Concerned(tt.after, "d", now); got != tt.concerned {
			t.Errorf("%s: concerned %t, want %t", name, got, tt.concerned)
		}
		if string(b.Encode(nil, 0)) != memory {
			t.Errorf("%s: looking changed the book", name)
		}
		emit = nil
		b.Review(tt.after, "d", now, &emit)
		if len(emit) != tt.transitions {
			t.Errorf("%s: %d transitions, want %d: %+v", name, len(emit), tt.transitions, emit)
		}
		if b.Concerned(tt.after, "d", now) {
			t.Errorf("%s: a second review is wanted", name)
		}
	}
}

// TestReviewOfSilence: that a device is back does not end the alert that nothing comes of it, whoever looks.
func TestReviewOfSilence(t *testing.T) {
	set, err := NewSet([]Rule{{ID: "quiet", Kind: Stale, ForDuration: 2 * time.Second, Levels: []Level{{Severity: Info}}}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(seconds float64) int64 { return int64(1e18) + int64(seconds*1e9) }
	var b Book
	var got []Alert
	b.Seen(set, "d", at(0), &got)
	b.Tick(set, "d", at(2), &got)
	if len(got) != 1 || got[0].State != Firing {
		t.Fatalf("silent for two seconds: %v", got)
	}
	b.Presence(set, "d", false, at(2.5), &got)
	b.Presence(set, "d", true, at(3), &got)
	if b.Concerned(set, "d", at(3.5)) {
		t.Error("the same rules mean something new for a device that is back and silent")
	}
	if b.Review(set, "d", at(3.5), &got); len(got) != 1 {
		t.Errorf("a review ended it: %v", got[1:])
	}
	if b.Seen(set, "d", at(4), &got); len(got) != 2 || got[1].State != Resolved {
		t.Errorf("data came: %v", got[1:])
	}
}

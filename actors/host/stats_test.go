package host

import (
	"sync"
	"testing"
)

// TestAccountsAddUp: whoever reads the accounts while samples move through them finds none twice.
func TestAccountsAddUp(t *testing.T) {
	const samples = 200_000
	var s Stats
	var moving sync.WaitGroup
	moving.Go(func() {
		for range samples {
			s.Received.Add(1)
			s.add(&Counts{Held: 1})
			s.add(&Counts{Applied: 1, Held: -1})
		}
	})
	for s.Applied.Load() < samples {
		if a := s.Accounts(); a.InFlight < 0 {
			t.Fatalf("%+v: more settled than received", a)
		}
	}
	moving.Wait()
	want := Accounts{Received: samples, Applied: samples}
	if got := s.Accounts(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

package world

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag      = flag.Uint64("seed", 1, "the first seed; the others follow it")
	schedulesFlag = flag.Uint64("schedules", 0, "how many schedules to play (0: as many as time allows, with -long 100,000)")
	longFlag      = flag.Bool("long", false, "take all the time it needs")
	showFlag      = flag.Bool("show", false, "write every step")
)

// shortForm is how long schedules are played where nobody asked for more; with the race detector a tenth of it.
const shortForm = 150 * time.Second

// TestSchedules: whatever happens, no invariant is broken.
func TestSchedules(t *testing.T) {
	last, end := *seedFlag+*schedulesFlag, time.Now().Add(24*time.Hour)
	switch {
	case *schedulesFlag > 0:
	case *longFlag:
		last = *seedFlag + 100_000
	case testing.Short(), raced:
		last, end = math.MaxUint64, time.Now().Add(shortForm/10)
	default:
		last, end = math.MaxUint64, time.Now().Add(shortForm)
	}
	var trace io.Writer
	workers := runtime.GOMAXPROCS(0)
	if *showFlag {
		trace, workers = t.Output(), 1
	}
	var next, failed atomic.Uint64
	next.Store(*seedFlag)
	var wg sync.WaitGroup
	sums := make([]Counts, workers)
	begin := time.Now()
	for i := range workers {
		wg.Go(func() {
			lab := NewLab()
			for failed.Load() < 5 && time.Now().Before(end) {
				seed := next.Add(1) - 1
				if seed >= last {
					return
				}
				if found := lab.Play(seed, trace, &sums[i]); found != "" {
					failed.Add(1)
					t.Errorf("seed %d: %s\nplay it again: go test ./sim/world -run TestSchedules -schedules 1 -show -seed %d", seed, found, seed)
				}
			}
		})
	}
	wg.Wait()
	var sum Counts
	for i := range sums {
		sum.add(&sums[i])
	}
	t.Logf("%d schedules from seed %d on, %.0f a second: %v", sum.Worlds, *seedFlag, float64(sum.Worlds)/time.Since(begin).Seconds(), sum)
	if sum.Worlds == 0 {
		t.Error("nothing was played")
	}
}

// TestASeedDecidesEverything: the same seed gives the same world, step for step, or it could not be played again.
func TestASeedDecidesEverything(t *testing.T) {
	lab := NewLab()
	for seed := uint64(1); seed <= 100; seed++ {
		var first, second bytes.Buffer
		var sum Counts
		lab.Play(seed, &first, &sum)
		lab.Play(seed, &second, &sum)
		if first.Len() == 0 {
			t.Fatalf("seed %d: nothing happened", seed)
		}
		a, b := bufio.NewScanner(&first), bufio.NewScanner(&second)
		for line := 1; a.Scan(); line++ {
			if b.Scan(); a.Text() != b.Text() {
				t.Errorf("seed %d, line %d:\n%s\n%s", seed, line, a.Text(), b.Text())
				break
			}
		}
	}
}

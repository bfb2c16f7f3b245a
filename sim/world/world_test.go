package world

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"testing"
	"time"
)

var (
	seedFlag      = flag.Uint64("seed", 1, "the first seed")
	schedulesFlag = flag.Uint64("schedules", 1000, "how many schedules to play")
	showFlag      = flag.Bool("show", false, "write every step")
)

func TestSchedules(t *testing.T) {
	lab := NewLab()
	var sum Counts
	var trace io.Writer
	if *showFlag {
		trace = t.Output()
	}
	begin := time.Now()
	failed := 0
	for seed := *seedFlag; seed < *seedFlag+*schedulesFlag; seed++ {
		if found := lab.Play(seed, trace, &sum); found != "" {
			t.Errorf("seed %d: %s", seed, found)
			if failed++; failed > 10 {
				break
			}
		}
	}
	t.Logf("%+v, %.0f a second", sum, float64(sum.Worlds)/time.Since(begin).Seconds())
}

// TestASeedDecidesEverything: the same seed gives the same world, step for step, or it could not be played again.
func TestASeedDecidesEverything(t *testing.T) {
	lab := NewLab()
	for seed := uint64(1); seed <= 300; seed++ {
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

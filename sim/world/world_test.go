package world

import (
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

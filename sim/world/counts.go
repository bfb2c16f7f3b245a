package world

import "fmt"

// Counts say what happened in some worlds, to see that the faults meet something.
type Counts struct {
	Worlds                                                                  int
	steps, boots, crashes, tables, records, void, gaps, forced, late        int
	slow, adoptions, transitions, letters, orders, enacted, writes, deletes int
}

// String says it to people.
func (c Counts) String() string {
	return fmt.Sprintf("%d steps, %d processes, %d crashes, %d tables, %d records and %d void ones, %d gaps (%d forced), %d late samples, "+
		"%d messages by the slow path, %d adoptions, %d alert transitions, %d dead letters, rules changed %d times, in %d records, %d updates and %d deletes",
		c.steps, c.boots, c.crashes, c.tables, c.records, c.void, c.gaps, c.forced, c.late, c.slow, c.adoptions, c.transitions, c.letters, c.orders, c.enacted, c.writes, c.deletes)
}

func (c *Counts) add(d *Counts) {
	c.Worlds += d.Worlds
	c.steps += d.steps
	c.boots += d.boots
	c.crashes += d.crashes
	c.tables += d.tables
	c.records += d.records
	c.void += d.void
	c.gaps += d.gaps
	c.forced += d.forced
	c.late += d.late
	c.slow += d.slow
	c.adoptions += d.adoptions
	c.transitions += d.transitions
	c.letters += d.letters
	c.orders += d.orders
	c.enacted += d.enacted
	c.writes += d.writes
	c.deletes += d.deletes
}

package oracle

import "fmt"

// Fault is what is wrong with samples that were acknowledged.
type Fault string

// The faults an oracle looks for.
const (
	Lost       Fault = "lost"       // acknowledged and nowhere
	Duplicated Fault = "duplicated" // took effect more than once
	Reordered  Fault = "reordered"  // took effect behind a later one
	Mismatch   Fault = "digest"     // the twin's digest is not the device's
	Poison     Fault = "poison"     // a refused message that is not in the dead letters
	Unchecked  Fault = "unchecked"  // a check that was asked for and could not be made
)

// Finding is one difference.
type Finding struct {
	Fault  Fault
	Device string // empty: the fleet
	Count  uint64 // samples
	Detail string
}

// String is the finding as one line.
func (f Finding) String() string {
	who := f.Device
	if who == "" {
		who = "fleet"
	}
	return fmt.Sprintf("%s: %s: %s", f.Fault, who, f.Detail)
}

// account is what one source of truth (twins, log, rows) showed.
type account struct {
	source                      string
	lost, duplicated, reordered uint64
	mismatches                  uint64 // devices
	late                        uint64
	findings                    []Finding
}

// keep is the number of findings of one account that are worth naming.
const keep = 20

func (a *account) add(f Finding) {
	switch f.Fault {
	case Lost:
		a.lost += f.Count
	case Duplicated:
		a.duplicated += f.Count
	case Reordered:
		a.reordered += f.Count
	case Mismatch:
		a.mismatches += f.Count
	case Poison, Unchecked:
	}
	f.Detail = a.source + ": " + f.Detail
	if len(a.findings) < keep {
		a.findings = append(a.findings, f)
	}
}

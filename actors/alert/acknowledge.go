package alert

// Acknowledgement says that somebody looks after an open alert.
type Acknowledgement struct {
	Alert       uint64
	By, Comment string
}

// Acknowledge notes that somebody looks after an open alert, so that it is not raised for want of that. Of
// several the newest counts. false: there is no such alert, or the same one said so before and has nothing to add.
func (b *Book) Acknowledge(s *Set, device string, k *Acknowledgement, at int64, emit *[]Alert) bool {
	for i := range b.trackers {
		t := &b.trackers[i]
		if t.open == nil || t.open.alert.ID != k.Alert {
			continue
		}
		a := &t.open.alert
		if a.AcknowledgeTime != 0 && a.AcknowledgedBy == k.By && (k.Comment == "" || a.AcknowledgeComment == k.Comment) {
			return false
		}
		a.AcknowledgeTime, a.AcknowledgedBy, a.AcknowledgeComment = at, k.By, k.Comment
		in := turn{s, device, at, emit}
		b.tell(&in, a, at)
		b.schedule(s, device, at)
		return true
	}
	return false
}

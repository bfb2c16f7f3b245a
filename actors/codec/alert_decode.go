package codec

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/doppel-iot/doppel/actors/alert"
)

var errNotAlert = errors.New("not an alert")

// decodeAlert is AlertFrom for an encoded doppelv1.Alert, without a message in between.
func decodeAlert(b []byte, names names) (alert.Alert, error) {
	var a alert.Alert
	var id []byte
	w := wire{b: b}
	for w.next() {
		switch {
		case w.is(1, protowire.BytesType):
			id = w.bytes()
		case w.num == 3, w.num == 5, w.num == 19, w.num == 21, w.num == 24, w.num == 25:
			w.alertText(&a, names)
		case w.num >= 8 && w.num <= 11 && w.typ == protowire.BytesType:
			*[...]*int64{&a.CreateTime, &a.FireTime, &a.ResolveTime, &a.UpdateTime}[w.num-8] = w.time()
		case w.is(20, protowire.BytesType):
			a.AcknowledgeTime = w.time()
		case w.is(23, protowire.BytesType):
			w.tag(&a.Tags, names)
		case w.is(28, protowire.BytesType):
			a.EscalateTime = w.time()
		case w.typ == protowire.VarintType:
			w.alertCount(&a)
		case w.typ == protowire.Fixed64Type:
			w.alertNumber(&a)
		default:
			w.skip()
		}
	}
	if w.bad {
		return a, errNotAlert
	}
	var err error
	if a.ID, err = strconv.ParseUint(string(id), 16, 64); err != nil {
		return a, fmt.Errorf("alert id: %w", err)
	}
	return a, nil
}

// alertText reads a text of an alert. As in every protobuf library, one that is not UTF-8 is none.
func (w *wire) alertText(a *alert.Alert, names names) {
	num := w.num
	if w.typ != protowire.BytesType {
		w.skip()
		return
	}
	text := w.bytes()
	if !utf8.Valid(text) {
		w.fail()
		return
	}
	switch num {
	case 3:
		a.Rule = names.intern(text)
	case 5:
		a.Metric = names.intern(text)
	case 21:
		a.AcknowledgedBy = string(text)
	case 24:
		a.AcknowledgeComment = string(text)
	case 25:
		a.Silence = names.intern(text)
	default:
		a.Reason = string(text)
	}
}

func (w *wire) alertCount(a *alert.Alert) {
	num, v := w.num, w.varint()
	switch num {
	case 4:
		a.RuleVersion = v
	case 6:
		a.Severity = alert.Severity(v)
	case 7:
		a.State = alert.State(v)
	case 14:
		a.BaselineCount = v
	case 17:
		a.Boot = v
	case 18:
		a.Seq = v
	case 26:
		a.Shadow = v != 0
	case 27:
		a.Flapping = v != 0
	default: // unknown; and silenced, which the silence says
	}
}

// tag reads an entry of a map of texts.
func (w *wire) tag(tags *map[string]string, names names) {
	var key, value []byte
	in := wire{b: w.bytes()}
	for in.next() {
		switch {
		case in.is(1, protowire.BytesType):
			key = in.bytes()
		case in.is(2, protowire.BytesType):
			value = in.bytes()
		default:
			in.skip()
		}
	}
	if in.bad || !utf8.Valid(key) || !utf8.Valid(value) {
		w.fail()
		return
	}
	if *tags == nil {
		*tags = make(map[string]string)
	}
	(*tags)[names.intern(key)] = names.intern(value)
}

func (w *wire) alertNumber(a *alert.Alert) {
	num, v := w.num, math.Float64frombits(w.fixed64())
	switch num {
	case 12:
		a.Value = v
	case 13:
		a.Score = v
	case 15:
		a.BaselineMean = v
	case 16:
		a.BaselineStddev = v
	default: // unknown
	}
}

// time reads a google.protobuf.Timestamp as unix nanoseconds.
func (w *wire) time() int64 {
	var sec, nsec int64
	in := wire{b: w.bytes()}
	for in.next() {
		switch {
		case in.is(1, protowire.VarintType):
			sec = int64(in.varint())
		case in.is(2, protowire.VarintType):
			nsec = int64(int32(in.varint()))
		default:
			in.skip()
		}
	}
	if in.bad {
		w.fail()
	}
	return sec*1e9 + nsec
}

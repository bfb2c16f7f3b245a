package auth

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Entry is one write as it is recorded.
type Entry struct {
	Time     time.Time         `json:"time"`
	Node     string            `json:"node"`
	Who      string            `json:"who"`
	By       string            `json:"by"`
	Role     string            `json:"role"`
	Tags     map[string]string `json:"tags,omitempty"` // that the identity is bound to
	Peer     string            `json:"peer"`
	Method   string            `json:"method"`
	Resource string            `json:"resource"`
	Code     string            `json:"code"`
	Error    string            `json:"error,omitempty"`
	Request  map[string]any    `json:"request,omitempty"`
}

// NewEntry records a call that was made, or refused.
func NewEntry(ctx context.Context, method, peer string, req any, code codes.Code, err error) Entry {
	id := FromContext(ctx)
	e := Entry{
		Time: time.Now().UTC(), Who: id.Name, By: id.By, Role: id.Role.String(), Tags: id.Tags,
		Peer: peer, Method: strings.TrimPrefix(method, "/"), Code: code.String(),
	}
	if err != nil {
		e.Error = shorten(err.Error())
	}
	if m, ok := req.(proto.Message); ok && m != nil {
		e.Request = summary(m.ProtoReflect())
		e.Resource = resource(m.ProtoReflect())
	}
	return e
}

// resource is the id that a request is about: its own, or that of what it carries.
func resource(m protoreflect.Message) string {
	for _, name := range []protoreflect.Name{"id", "twin", "rule"} {
		f := m.Descriptor().Fields().ByName(name)
		switch {
		case f == nil:
		case f.Kind() == protoreflect.StringKind && !f.IsList():
			return m.Get(f).String()
		case f.Kind() == protoreflect.MessageKind && m.Has(f):
			return resource(m.Get(f).Message())
		}
	}
	return ""
}

const (
	summaryDepth = 3
	summaryItems = 20
)

// free are the messages whose content is whatever people put there, passwords too: only their size is told.
var free = []protoreflect.FullName{"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}

// summary is a request without what may be secret in it.
func summary(m protoreflect.Message) map[string]any {
	out := make(map[string]any)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out[f.JSONName()] = summaryOf(f, v, summaryDepth)
		return true
	})
	return out
}

func summaryOf(f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) any {
	switch {
	case f.IsMap():
		entries := make(map[string]any)
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			entries[shorten(k.String())] = summaryOne(f.MapValue(), v, depth)
			return len(entries) < summaryItems
		})
		return entries
	case f.IsList():
		var items []any
		for i := range min(v.List().Len(), summaryItems) {
			items = append(items, summaryOne(f, v.List().Get(i), depth))
		}
		return items
	}
	return summaryOne(f, v, depth)
}

func summaryOne(f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) any {
	switch f.Kind() {
	case protoreflect.BytesKind:
		return map[string]any{"bytes": len(v.Bytes())}
	case protoreflect.StringKind:
		if s := v.String(); len(s) > 500 {
			return s[:500] + "…"
		}
		return v.String()
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return string(d.Name())
		}
		return int(v.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		m := v.Message()
		if depth == 0 || slices.Contains(free, m.Descriptor().FullName()) {
			return map[string]any{"bytes": proto.Size(m.Interface())}
		}
		inner := make(map[string]any)
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			inner[f.JSONName()] = summaryOf(f, v, depth-1)
			return true
		})
		return inner
	default:
		return v.Interface()
	}
}

const (
	// journalQueue is how many entries may wait for the log, journalPatience how long one may be on its way
	// when the node stops.
	journalQueue    = 4096
	journalPatience = 3 * time.Second
)

// Keeper is where entries are kept. done is called once, also if it fails.
type Keeper func(ctx context.Context, key, entry []byte, done func(error))

// Journal records writes: each in the log of the process, and in that of the cluster. It never keeps a
// call waiting; an entry that did not get into the cluster's log is told in that of the process, whole.
type Journal struct {
	node  string
	keep  Keeper
	log   *slog.Logger
	queue chan Entry
}

// NewJournal returns a journal of a node; Run keeps what is recorded.
func NewJournal(node string, keep Keeper, log *slog.Logger) *Journal {
	return &Journal{node: node, keep: keep, log: log, queue: make(chan Entry, journalQueue)}
}

// Record takes an entry.
func (j *Journal) Record(ctx context.Context, e Entry) {
	e.Node = j.node
	j.log.InfoContext(ctx, "write", "who", e.Who, "by", e.By, "role", e.Role, "peer", e.Peer, "method", e.Method,
		"resource", e.Resource, "code", e.Code, "request", e.Request)
	select {
	case j.queue <- e:
	default:
		j.unkept(ctx, e, "too many are waiting")
	}
}

// Run keeps entries until ctx ends, and then what still waits, for a while.
func (j *Journal) Run(ctx context.Context) error {
	for {
		select {
		case e := <-j.queue:
			j.put(ctx, e)
			continue
		default:
		}
		select {
		case e := <-j.queue:
			j.put(ctx, e)
		case <-ctx.Done():
			return j.rest(context.WithoutCancel(ctx))
		}
	}
}

func (j *Journal) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, journalPatience)
	defer cancel()
	for {
		select {
		case e := <-j.queue:
			j.put(ctx, e)
		default:
			return nil
		}
	}
}

func (j *Journal) put(ctx context.Context, e Entry) {
	b, err := json.Marshal(e)
	if err != nil {
		j.unkept(ctx, e, err.Error())
		return
	}
	j.keep(ctx, []byte(e.Resource), b, func(err error) {
		if err != nil {
			j.unkept(context.WithoutCancel(ctx), e, err.Error())
		}
	})
}

func (j *Journal) unkept(ctx context.Context, e Entry, why string) {
	j.log.ErrorContext(ctx, "record of a write not kept", "error", why, "time", e.Time, "who", e.Who, "by", e.By, "role", e.Role,
		"tags", slices.Sorted(maps.Keys(e.Tags)), "peer", e.Peer, "method", e.Method, "resource", e.Resource, "code", e.Code, "request", e.Request)
}

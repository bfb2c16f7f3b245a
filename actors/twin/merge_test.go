package twin

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMergePatch is the table of RFC 7396, appendix A, as far as patches are objects.
func TestMergePatch(t *testing.T) {
	for _, tt := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{}`, `{"a":1e400,"b":1.10,"c":"<é\u2028>","d":12345678901234567890}`, `{"a":1e400,"b":1.10,"c":"<é\u2028>","d":12345678901234567890}`},
	} {
		got := string(appendCanonical(nil, mergePatch(decoded(t, tt.target), decoded(t, tt.patch))))
		if got != tt.want {
			t.Errorf("%s patched by %s: got %s, want %s", tt.target, tt.patch, got, tt.want)
		}
	}
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	v, err := decodeJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzMergePatch applies two patches through the properties of a twin, key by key, and to a whole
// document at once: both must agree, whatever the patches are.
func FuzzMergePatch(f *testing.F) {
	for _, s := range []string{
		`{"a":1}`, `{"a":null}`, `{"a":{"b":null,"c":[1,{"d":null}]}}`, `{"a":{"b":{"c":2}},"":3}`, `{"é":"\ud800"}`, `{"a":1,"a":2}`,
		`{"a":1} {}`, `[]`, `null`, `{"a":1e999}`, "{\"\xff\":1,\"\xfe\":null}",
	} {
		f.Add([]byte(s), []byte(`{"a":{"b":5}}`))
		f.Add([]byte(`{"a":{"b":5,"x":"y"}}`), []byte(s))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		tw := New("d", 0)
		var whole any = map[string]any{}
		var out Effects
		for i, text := range [][]byte{first, second, second} {
			in := Input{Kind: KindReported, ReceivedAt: int64(i), Reported: Reported{Patch: text}}
			tw.Step(int64(i), &in, nil, &out)
			patch, err := decodeObject(text)
			if (err != nil) != (out.Outcome == Refuse && out.Reason == NotDecodable) {
				t.Fatalf("patch %q: outcome %d %s, error %v", text, out.Outcome, out.Reason, err)
			}
			if out.Outcome != Refuse {
				whole = mergePatch(whole, any(patch))
			}
			want := appendCanonical(nil, whole)
			if got := tw.Reported(); !bytes.Equal(got, want) {
				t.Fatalf("after %q: got %s, want %s", text, got, want)
			}
			if tw.props != nil {
				checkSize(t, tw.props)
			}
		}
	})
}

func checkSize(t *testing.T, p *properties) {
	t.Helper()
	size, keys := 0, map[string]bool{}
	for i := range p.list {
		size += cost(p.list[i].text)
		keys[p.list[i].key] = true
	}
	if size != p.size || p.reserved != 0 {
		t.Fatalf("size %d and reserved %d, want %d and 0", p.size, p.reserved, size)
	}
	var listed []string
	for i := range p.list {
		listed = append(listed, p.list[i].key)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(keys)), listed); diff != "" {
		t.Fatalf("keys (-sorted +listed):\n%s", diff)
	}
}

package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

const someToken = "correct-horse-battery"

func TestParseTokens(t *testing.T) {
	sum := sha256.Sum256([]byte("another-long-token"))
	tokens, err := ParseTokens([]byte(`
tokens:
- {name: grafana, sha256: ` + hex.EncodeToString(sum[:]) + `, role: reader}
- {name: brno, token: ` + someToken + `, role: operator, tags: {site: brno}}
certificates:
- {name: "ops-*", role: admin}
`))
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{"another-long-token": "grafana", someToken: "brno", "": "", "nope": ""} {
		id := tokens.token(token)
		if id == nil {
			id = &Identity{}
		}
		if id.Name != want {
			t.Errorf("token %q: got %q, want %q", token, id.Name, want)
		}
	}
	if id := tokens.token(someToken); id.Role != Operator || !id.Scoped() || id.Sees(nil) || !id.Sees(map[string]string{"site": "brno", "line": "1"}) {
		t.Errorf("got %+v", id)
	}
}

// TestTokensAreRefused: with the place of what is wrong, and never with what stands there.
func TestTokensAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"no role":        {"tokens:\n- {name: a, token: " + someToken + "}", "tokens[0]: role of a is missing"},
		"no such role":   {"tokens:\n- {name: a, token: " + someToken + ", role: root}", `role "root" is none of`},
		"no name":        {"tokens:\n- {token: " + someToken + ", role: reader}", "tokens[0]: name is missing"},
		"no token":       {"tokens:\n- {name: a, role: reader}", "needs either token or sha256"},
		"short":          {"tokens:\n- {name: a, token: short, role: reader}", "token has 5 bytes"},
		"no hash":        {"tokens:\n- {name: a, sha256: xyz, role: reader}", "sha256 is not 64 hex digits"},
		"twice":          {"tokens:\n- {name: a, token: " + someToken + ", role: reader}\n- {name: b, token: " + someToken + ", role: reader}", "tokens[1] (b): has the token of a"},
		"misspelt":       {"tokens:\n- {name: a, tokn: " + someToken + ", role: reader}", "line 2: field tokn"},
		"another type":   {"tokens:\n- {name: a, token: [" + someToken + "], role: reader}", "line 2: not what belongs there"},
		"nothing":        {"# being written\n", "is empty"},
		"not YAML":       {"tokens: [" + someToken, "not YAML"},
		"an empty tag":   {"tokens:\n- {name: a, token: " + someToken + ", role: reader, tags: {\"\": x}}", "a key is empty"},
		"no certificate": {"certificates:\n- {role: admin}", "certificates[0]: name is missing"},
	} {
		_, err := ParseTokens([]byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), someToken) {
			t.Errorf("%s: the error tells the token: %v", name, err)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"pump-1", "pump-1", true},
		{"pump-1", "pump-10", false},
		{"pump-*", "pump-", true},
		{"pump-*", "fan-1", false},
		{"*-1", "pump-1", true},
		{"*-1", "pump-1-2", false},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyy", false},
		{"*", "", true},
		{"a*a", "a", false},
		{"", "", true},
		{"", "x", false},
		{"**", "x", true},
		{"spiffe://x/*", "spiffe://x/ns/y", true},
	} {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("glob(%q, %q) = %v", tc.pattern, tc.s, got)
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Add("tokens:\n- {name: a, token: " + someToken + ", role: reader}")
	f.Add("tokens: [{name: &a x, sha256: *a}]")
	f.Add("certificates:\n- {name: '*', role: admin, tags: {a: b}}")
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := ParseTokens([]byte(text))
		if err != nil {
			return
		}
		for _, id := range tokens.tokens {
			if id.Role == None || id.Name == "" {
				t.Errorf("an identity without name or role: %+v", id)
			}
		}
		if id := tokens.token(""); id != nil {
			t.Errorf("no token is %+v", id)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Bearer " + someToken, "bearer  " + someToken, "Bearer a b", "Basic x", "Bearer", "Bearer \x00", "Bearer a,Bearer b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, ok := bearer(header)
		if ok && (token == "" || strings.ContainsAny(token, " \t\r\n,") || !strings.Contains(header, token)) {
			t.Errorf("%q is the token %q", header, token)
		}
	})
}

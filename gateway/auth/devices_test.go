package auth

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func hash(t testing.TB, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDeviceUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("users:\n- {name: pump-1, password: " + hash(t, "one") + "}\n- {name: gw, password: " + hash(t, "two") + ", devices: ['fan-*']}\n" +
		"- {name: backend, password: " + hash(t, "three") + ", service: true}\n- {name: cert-only}\n")
	u, err := OpenDeviceUsers(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, password string
		ok             bool
	}{{"pump-1", "one", true}, {"pump-1", "one", true}, {"pump-1", "two", false}, {"gw", "two", true}, {"cert-only", "", false}, {"nobody", "one", false}, {"", "", false}} {
		if _, err := u.Password(tc.name, tc.password); (err == nil) != tc.ok {
			t.Errorf("%s with %q: %v", tc.name, tc.password, err)
		}
	}
	gw, err := u.Password("gw", "two")
	if err != nil || !gw.Is("fan-3") || gw.Is("pump-1") || gw.Is("gw") || gw.Service {
		t.Errorf("got %+v, %v", gw, err)
	}
	if d, err := u.Certificate(certificateOf("pump-9")[0]); err != nil || !d.Is("pump-9") || d.Is("pump-1") {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := u.Certificate(certificateOf("backend")[0]); err != nil || !d.Service {
		t.Errorf("got %+v, %v", d, err)
	}
	if _, err := u.Certificate(certificateOf("")[0]); err == nil {
		t.Error("a certificate of nobody is taken")
	}
	if Own("*").Is("pump-1") || !Own("pump-1").Is("pump-1") {
		t.Error("a client id is taken for a pattern")
	}
	if !u.Has("fan-7") || !u.Has("pump-1") || u.Has("other") {
		t.Error("Has is wrong")
	}
	told := 0
	u.OnChange(func() { told++ })
	write("users:\n- {name: gw, password: " + hash(t, "new") + "}\n")
	if err := u.read(); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Password("gw", "two"); err == nil || told != 1 {
		t.Errorf("the former password is taken (told %d times)", told)
	}
	if _, ok := u.Still(gw, true); ok {
		t.Error("who came in with the former password may stay")
	}
	if d, ok := u.Still(gw, false); !ok || d.Is("fan-1") {
		t.Error("who came in by certificate has other rights now")
	}
}

func TestDeviceUsersAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"users:\n- {password: x}":                                 "users[0]: name is missing",
		"users:\n- {name: a, password: hunter2}":                  "users[0] (a): password is not a bcrypt hash",
		"users:\n- {name: a}\n- {name: a}":                        `users[1]: there are two of name "a"`,
		"users:\n- {name: a, service: true, devices: [b]}":        "is a service or has devices, not both",
		"users:\n- {name: a, pasword: hunter2-which-is-a-secret}": "field pasword",
	} {
		_, err := parseDeviceUsers([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

package socp

// The golden vectors: every valid case is accepted with the values named, every invalid one refused.

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	fed "socp.example/interop/gen/socp/federation/v1"
	pb "socp.example/interop/gen/socp/v1"
)

const folder = "../../proto/tests/vectors"

// All files of the folder: one that is new has to be read, too.
var files = []string{"batch.json", "channel_post.json", "digest.json", "envelope.json", "file.json", "key_statement.json", "keys.json",
	"login.json", "move.json", "outcome.json", "receipt.json", "server_info.json"}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type entry struct {
	ServerID    string   `json:"server_id"`
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name"`
	Status      string   `json:"status"`
	Hash        hexBytes `json:"key_statement_sha256"`
	Epoch       uint64   `json:"epoch,string"`
	OnlineSince uint64   `json:"online_since,string"`
	Sessions    uint32   `json:"sessions"`
}

// piece is some of what a home gives of a file: as it stands there, or a part of an encrypted file whose byte p is p modulo 251.
type piece struct {
	Hex   *hexBytes `json:"hex"`
	Key   hexBytes  `json:"key"`
	Bytes uint64    `json:"bytes,string"`
	From  uint64    `json:"from,string"`
	To    uint64    `json:"to,string"`
}

func (p *piece) bytes() (sealed []byte) {
	if p.Hex != nil {
		return *p.Hex
	}
	plain := make([]byte, p.Bytes)
	for i := range plain {
		plain[i] = byte(i % 251)
	}
	chunks := newChunks(p.Key, p.Bytes)
	for i := range chunks.count {
		sealed = append(sealed, chunks.seal(i, plain[i*chunkBytes:][:chunks.size(i)])...)
	}
	return sealed[p.From:p.To]
}

// vector has the fields of the cases of all files.
type vector struct {
	Case  string `json:"case"`
	Valid bool   `json:"valid"`

	Info           hexBytes `json:"server_info"`
	Pinned         string   `json:"pinned_server_id"`
	CertificateKey hexBytes `json:"certificate_key"`
	Name           string   `json:"name"`

	Outcome    hexBytes `json:"signed_outcome"`
	Kind       string   `json:"kind"`
	Reason     string   `json:"reason"`
	Recipients uint32   `json:"recipients"`

	User      string   `json:"user"`
	HomeID    string   `json:"home_id"`
	OwnHomeID string   `json:"own_home_id"`
	Signed    hexBytes `json:"signed_key_statement"`
	Hash      hexBytes `json:"key_statement_sha256"`
	Previous  hexBytes `json:"previous"`
	Number    uint64   `json:"number,string"`
	KeySha256 hexBytes `json:"key_sha256"`

	Before    hexBytes `json:"key_statement"`
	Move      hexBytes `json:"signed_move"`
	After     hexBytes `json:"new_key_statement"`
	NewUser   string   `json:"new_user"`
	NewHomeID string   `json:"new_home_id"`

	ServerID  string   `json:"server_id"`
	PublicKey hexBytes `json:"public_key"`
	Nonce     hexBytes `json:"nonce"`
	Statement hexBytes `json:"statement"`
	Signature hexBytes `json:"signature"`

	Recipient       string   `json:"recipient"`
	SealedMessage   hexBytes `json:"sealed_message"`
	Member          string   `json:"member"`
	SealedPost      hexBytes `json:"sealed_post"`
	Wrapped         hexBytes `json:"wrapped_channel_key"`
	Known           hexBytes `json:"known_channel_key"`
	KnownID         hexBytes `json:"known_key_id"`
	Sender          string   `json:"sender"`
	Text            string   `json:"text"`
	MessageID       string   `json:"message_id"`
	TimeMS          int64    `json:"time_unix_ms,string"`
	KeyID           hexBytes `json:"key_id"`
	Counter         uint64   `json:"counter,string"`
	StatementSha256 hexBytes `json:"statement_sha256"`

	MessageIDs []string `json:"message_ids"`

	Stored           []piece  `json:"stored"`
	FileID           string   `json:"file_id"`
	Bytes            uint64   `json:"bytes,string"`
	Key              hexBytes `json:"key"`
	CiphertextSha256 hexBytes `json:"ciphertext_sha256"`
	SavedAs          string   `json:"saved_as"`
	ContentSha256    hexBytes `json:"content_sha256"`

	Origin   string   `json:"origin"`
	Batch    hexBytes `json:"signed_batch"`
	Epoch    uint64   `json:"epoch,string"`
	StartID  hexBytes `json:"start_id"`
	Adverts  []string `json:"adverts"`
	Removals []string `json:"removals"`
	Digest   hexBytes `json:"digest"`
	Entries  []entry  `json:"entries"`
	Rest     []entry  `json:"entries_after"`
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// each runs a check on every case of a file; the check says whether the case is acceptable.
func each(t *testing.T, name string, check func(t *testing.T, v *vector) error) {
	var file struct{ Cases []*vector }
	read(t, name, &file)
	is := func(valid bool) bool {
		return slices.ContainsFunc(file.Cases, func(v *vector) bool { return v.Valid == valid })
	}
	if !is(true) || !is(false) || !slices.Contains(files, name) {
		t.Fatal("there are not cases of both kinds")
	}
	for _, v := range file.Cases {
		t.Run(v.Case, func(t *testing.T) {
			if err := check(t, v); (err == nil) != v.Valid {
				t.Errorf("valid is %v, but: %v", v.Valid, err)
			}
		})
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, not %v", what, got, want)
	}
}

type people struct {
	Homes map[string]struct {
		Identity hexBytes `json:"identity_key"`
		Seed     hexBytes `json:"identity_seed"`
		ID       string   `json:"server_id"`
	}
	Users map[string]struct {
		Home    string   `json:"home"`
		Sum     hexBytes `json:"key_sha256"`
		Private hexBytes `json:"private_key_pkcs8"`
		Public  hexBytes `json:"public_key"`
	}
}

// nobodyElse is a directory that knows nobody beyond those who are pinned.
type nobodyElse struct{ pb.DirectoryServiceClient }

func (nobodyElse) GetUser(context.Context, *pb.GetUserRequest, ...grpc.CallOption) (*pb.GetUserResponse, error) {
	return nil, fmt.Errorf("%w: nobody else", errIdentity) // not worth another try
}

// client is one of a user of the vectors, who has pinned the keys of all.
func client(t *testing.T, name string) *Client {
	t.Helper()
	var all people
	read(t, "keys.json", &all)
	user := all.Users[name]
	private, err := x509.ParsePKCS8PrivateKey(user.Private)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(Config{Name: name, ServerID: all.Homes[user.Home].ID, Key: private.(*rsa.PrivateKey)})
	c.Directory = nobodyElse{}
	for name, user := range all.Users {
		public, err := parseKey(user.Public)
		if err != nil {
			t.Fatal(err)
		}
		c.pins[Who{name, all.Homes[user.Home].ID}] = &Key{Number: 1, Public: public, Fingerprint: [32]byte(user.Sum)}
	}
	return c
}

func TestFiles(t *testing.T) {
	found, err := filepath.Glob(folder + "/*.json")
	for i, path := range found {
		found[i] = filepath.Base(path)
	}
	if err != nil || !slices.Equal(found, files) {
		t.Errorf("there are %v, not %v", found, files)
	}
}

func TestKeys(t *testing.T) {
	var all people
	read(t, "keys.json", &all)
	if len(all.Homes) == 0 || len(all.Users) == 0 {
		t.Fatal("nobody is there")
	}
	for name, home := range all.Homes {
		id := sha256.Sum256(home.Identity)
		equal(t, name, hex.EncodeToString(id[:]), home.ID)
		raw := ed25519.NewKeyFromSeed(home.Seed).Public().(ed25519.PublicKey)
		equal(t, name, hex.EncodeToString(slices.Concat(ed25519Prefix, raw)), hex.EncodeToString(home.Identity))
	}
	for name, user := range all.Users {
		equal(t, name, sha256.Sum256(user.Public), [32]byte(user.Sum))
		public, err := parseKey(user.Public)
		if err != nil || !public.Equal(client(t, name).Key.Public()) {
			t.Errorf("%s: the keys are no pair: %v", name, err)
		}
	}
}

func TestKeyStatement(t *testing.T) {
	each(t, "key_statement.json", func(t *testing.T, v *vector) error {
		var signed, previous pb.SignedKeyStatement
		if err := errors.Join(proto.Unmarshal(v.Signed, &signed), proto.Unmarshal(v.Previous, &previous)); err != nil {
			return err
		}
		who := Who{v.User, v.HomeID}
		var before *Key
		if len(v.Previous) > 0 {
			var err error
			if before, err = readKey(&previous, who, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		key, err := readKey(&signed, who, v.Hash, before)
		if err == nil {
			equal(t, "number", key.Number, v.Number)
			equal(t, "key_sha256", key.Fingerprint, [32]byte(v.KeySha256))
		}
		return err
	})
}

// A server's check, which is here as the counterpart of SignLogin.
func checkLogin(public, statement, signature []byte, serverID, user string, nonce []byte) error {
	key, err := parseKey(public)
	if err != nil {
		return err
	}
	if err := verify(key, "socp.v1.LoginStatement", statement, signature); err != nil {
		return err
	}
	var said pb.LoginStatement
	if err := proto.Unmarshal(statement, &said); err != nil {
		return err
	}
	if said.ServerId != serverID || said.User != user || !bytes.Equal(said.Nonce, nonce) {
		return errors.New("another login")
	}
	return nil
}

func TestLogin(t *testing.T) {
	each(t, "login.json", func(t *testing.T, v *vector) error {
		return checkLogin(v.PublicKey, v.Statement, v.Signature, v.ServerID, v.User, v.Nonce)
	})
	c, nonce := client(t, "alice"), random(32)
	login := c.SignLogin(nonce)
	if err := checkLogin(c.public, login.Statement, login.Signature, c.ServerID, "alice", nonce); err != nil {
		t.Error(err)
	}
}

func TestMove(t *testing.T) {
	each(t, "move.json", func(t *testing.T, v *vector) error {
		var before, after pb.SignedKeyStatement
		var signed pb.SignedMove
		var said pb.MoveStatement
		err := errors.Join(proto.Unmarshal(v.Before, &before), proto.Unmarshal(v.After, &after), proto.Unmarshal(v.Move, &signed))
		if err == nil {
			err = proto.Unmarshal(signed.Statement, &said)
		}
		if err != nil {
			return err
		}
		old, err := readKey(&before, Who{v.User, v.HomeID}, said.KeyStatementSha256, nil)
		if err != nil {
			return err
		}
		if err := verify(old.Public, "socp.v1.MoveStatement", signed.Statement, signed.Signature); err != nil {
			return err
		}
		if said.User != v.User || said.HomeId != v.HomeID || said.NewHomeId == said.HomeId {
			return errors.New("another move")
		}
		found, err := readKey(&after, Who{said.NewUser, said.NewHomeId}, nil, nil)
		if err != nil {
			return err
		}
		if found.Fingerprint != old.Fingerprint {
			return errors.New("another key at the new address")
		}
		equal(t, "new_user", said.NewUser, v.NewUser)
		equal(t, "new_home_id", said.NewHomeId, v.NewHomeID)
		equal(t, "time_unix_ms", said.TimeUnixMs, v.TimeMS)
		return nil
	})
}

func TestServerInfo(t *testing.T) {
	each(t, "server_info.json", func(t *testing.T, v *vector) error {
		var info pb.GetServerInfoResponse
		if err := proto.Unmarshal(v.Info, &info); err != nil {
			return err
		}
		err := checkServer(&info, v.Pinned, sha256.Sum256(v.CertificateKey))
		if err == nil {
			equal(t, "name", info.Name, v.Name)
		}
		return err
	})
}

func TestOutcome(t *testing.T) {
	each(t, "outcome.json", func(t *testing.T, v *vector) error {
		var signed pb.SignedOutcome
		if err := proto.Unmarshal(v.Outcome, &signed); err != nil {
			return err
		}
		outcome, err := checkOutcome(&signed, v.HomeID, v.OwnHomeID, [32]byte(v.StatementSha256))
		if err == nil {
			equal(t, "kind", outcome.Kind.String(), v.Kind)
			equal(t, "reason", outcome.Reason, v.Reason)
			equal(t, "recipients", outcome.Recipients, v.Recipients)
		}
		return err
	})
}

func TestEnvelope(t *testing.T) {
	each(t, "envelope.json", func(t *testing.T, v *vector) error {
		var sealed pb.SealedMessage
		if err := proto.Unmarshal(v.SealedMessage, &sealed); err != nil {
			return err
		}
		c := client(t, v.Recipient)
		text, err := c.openMessage(t.Context(), &sealed)
		if err != nil {
			return err
		}
		compare(t, v, text, sealed.Statement)
		if again, err := c.openMessage(t.Context(), &sealed); again != nil || err != nil {
			t.Errorf("a repeat is not dropped: %v, %v", again, err)
		}
		return nil
	})
	alice, bob := client(t, "alice"), client(t, "bob")
	sealed := alice.Seal(Who{"bob", bob.ServerID}, &bob.Key.PublicKey, Content{Text: "hello"})
	if text, err := bob.openMessage(t.Context(), sealed); err != nil || text.Text != "hello" || text.From != (Who{"alice", alice.ServerID}) {
		t.Errorf("an own message does not open: %v, %v", text, err)
	}
}

func TestFile(t *testing.T) {
	each(t, "file.json", func(t *testing.T, v *vector) error {
		var sealed pb.SealedMessage
		if err := proto.Unmarshal(v.SealedMessage, &sealed); err != nil {
			return err
		}
		text, err := client(t, v.Recipient).openMessage(t.Context(), &sealed)
		if err != nil {
			return err
		}
		m, content := text.File, sha256.New()
		receiver := newReceiver(m, content)
		var stored []byte
		for _, piece := range v.Stored {
			stored = append(stored, piece.bytes()...)
		}
		for part := range slices.Chunk(stored, 10007) {
			if err := receiver.take(part); err != nil {
				return err
			}
		}
		if err := receiver.finish(); err != nil {
			return err
		}
		equal(t, "text", text.Text, v.Text)
		equal(t, "file_id", m.FileId, v.FileID)
		equal(t, "home_id", m.HomeId, v.HomeID)
		equal(t, "name", m.Name, v.Name)
		equal(t, "bytes", m.Bytes, v.Bytes)
		equal(t, "key", [32]byte(m.Key), [32]byte(v.Key))
		equal(t, "ciphertext_sha256", [32]byte(m.CiphertextSha256), [32]byte(v.CiphertextSha256))
		equal(t, "saved_as", SafeName(m.Name), v.SavedAs)
		equal(t, "content_sha256", [32]byte(content.Sum(nil)), [32]byte(v.ContentSha256))
		return nil
	})
}

func TestReceipt(t *testing.T) {
	each(t, "receipt.json", func(t *testing.T, v *vector) error {
		var sealed pb.SealedMessage
		if err := proto.Unmarshal(v.SealedMessage, &sealed); err != nil {
			return err
		}
		text, err := client(t, v.Recipient).openMessage(t.Context(), &sealed)
		if err != nil {
			return err
		}
		equal(t, "kind", text.Receipt.Kind.String(), v.Kind)
		equal(t, "message_ids", fmt.Sprint(text.Receipt.MessageIds), fmt.Sprint(v.MessageIDs))
		return nil
	})
}

func TestOwnFile(t *testing.T) {
	alice, bob := client(t, "alice"), client(t, "bob")
	plain := bytes.Repeat([]byte{3}, 300000)
	source := newSource(bytes.NewReader(plain), "a.bin", uint64(len(plain)))
	upload := func(offset int) (sent []byte) {
		if err := source.parts(uint64(offset), func(part []byte) error { sent = append(sent, part...); return nil }); err != nil {
			t.Fatal(err)
		}
		return sent
	}
	whole := upload(0)
	equal(t, "encrypted bytes", uint64(len(whole)), source.chunks.sealedBytes())
	for _, offset := range []int{0, 1, sealedChunk, sealedChunk + 1, len(whole) - 1, len(whole)} {
		if !bytes.Equal(upload(offset), whole[offset:]) {
			t.Errorf("from %d on it is another file", offset)
		}
	}
	sealed := alice.Seal(Who{"bob", bob.ServerID}, &bob.Key.PublicKey, Content{Text: "a file", File: source.manifest(alice.ServerID)})
	text, err := bob.openMessage(t.Context(), sealed)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	receiver := newReceiver(text.File, &got)
	err = receiver.take(whole[:100000])
	err = errors.Join(err, receiver.take(whole[receiver.begin():]), receiver.finish())
	if err != nil || !bytes.Equal(got.Bytes(), plain) {
		t.Errorf("it is not what was sent: %v", err)
	}
	plain[200000]++
	if source.parts(0, func([]byte) error { return nil }) == nil {
		t.Error("a chunk is encrypted with other content under the same key")
	}
}

func TestFileNames(t *testing.T) {
	equal(t, "length", len(SafeName(strings.Repeat("ü", 300)+".pdf")), maxFileName)
	folder := t.TempDir()
	for _, name := range []string{"x.txt", "x (1).txt"} {
		part := filepath.Join(folder, "part")
		if err := os.WriteFile(part, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		path, err := settle(part, folder, "x.txt")
		text, _ := os.ReadFile(path)
		if err != nil || filepath.Base(path) != name || string(text) != name {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestChannelPost(t *testing.T) {
	each(t, "channel_post.json", func(t *testing.T, v *vector) error {
		var sealed pb.SealedPost
		var statement pb.PostStatement
		var header pb.PostHeader
		if err := errors.Join(proto.Unmarshal(v.SealedPost, &sealed), proto.Unmarshal(sealed.Statement, &statement),
			proto.Unmarshal(statement.Header, &header)); err != nil {
			return err
		}
		c, from := client(t, v.Member), Who{header.Sender, header.SenderHomeId}
		if len(v.Known) > 0 {
			c.kept[from] = []keptKey{{slices.Concat(header.SenderKeySha256, v.KnownID), v.Known}}
		}
		text, err := c.openPost(t.Context(), &sealed, v.Wrapped)
		if err != nil {
			return err
		}
		compare(t, v, text, sealed.Statement)
		equal(t, "key_id", hex.EncodeToString(header.KeyId), hex.EncodeToString(v.KeyID))
		equal(t, "counter", header.Counter, v.Counter)
		equal(t, "keys kept", len(c.kept[from]), 1)
		return nil
	})
}

func compare(t *testing.T, v *vector, text *Text, statement []byte) {
	t.Helper()
	equal(t, "sender", text.From.Name, v.Sender)
	equal(t, "text", text.Text, v.Text)
	equal(t, "message_id", text.ID, v.MessageID)
	equal(t, "time_unix_ms", text.TimeMS, v.TimeMS)
	equal(t, "statement_sha256", sha256.Sum256(statement), [32]byte(v.StatementSha256))
}

// digest is that of a list, in which one entry may stand twice.
func digest(entries []entry) [32]byte {
	list := map[Who]*pb.DirectoryEntry{}
	for i, e := range entries {
		list[Who{Name: fmt.Sprint(i)}] = &pb.DirectoryEntry{Name: e.Name, ServerId: e.ServerID, DisplayName: e.DisplayName,
			Status: e.Status, KeyStatementSha256: e.Hash, Epoch: e.Epoch, OnlineSince: e.OnlineSince, Sessions: e.Sessions}
	}
	return Digest(list)
}

func TestDigest(t *testing.T) {
	each(t, "digest.json", func(t *testing.T, v *vector) error {
		if digest(v.Entries) != [32]byte(v.Digest) {
			return errors.New("another digest")
		}
		return nil
	})
}

// What a server checks; clients meet no batches.
func checkBatch(signed []byte, origin string) (*fed.BatchStatement, error) {
	var batch fed.SignedBatch
	var said fed.BatchStatement
	if err := errors.Join(proto.Unmarshal(signed, &batch), proto.Unmarshal(batch.Statement, &said)); err != nil {
		return nil, err
	}
	id := sha256.Sum256(slices.Concat(ed25519Prefix, said.OriginKey))
	switch {
	case len(said.OriginKey) != 32 || hex.EncodeToString(id[:]) != origin:
		return nil, errors.New("of another origin")
	case !ed25519.Verify(said.OriginKey, labelled("socp.federation.v1.BatchStatement", batch.Statement), batch.Signature):
		return nil, errors.New("the signature is wrong")
	case said.Number == 0 || len(said.StartId) != 16 || len(said.Digest) != 32 || (len(said.Adverts) == 0) == (len(said.Removals) == 0) || len(said.Adverts)+len(said.Removals) > 256:
		return nil, errors.New("not adverts or removals under a number")
	}
	for _, a := range said.Adverts {
		if a.OnlineSince == 0 || a.OnlineSince > said.Number || a.Sessions == 0 {
			return nil, errors.New("an advert from another time")
		}
	}
	return &said, nil
}

func TestBatch(t *testing.T) {
	each(t, "batch.json", func(t *testing.T, v *vector) error {
		said, err := checkBatch(v.Batch, v.Origin)
		if err != nil {
			return err
		}
		if v.Rest != nil && digest(v.Rest) != [32]byte(said.Digest) {
			return errors.New("not the digest of its entries")
		}
		adverts, removals := []string{}, []string{}
		for _, a := range said.Adverts {
			adverts = append(adverts, a.User)
		}
		for _, r := range said.Removals {
			removals = append(removals, r.User)
		}
		equal(t, "epoch", said.Epoch, v.Epoch)
		equal(t, "start_id", hex.EncodeToString(said.StartId), hex.EncodeToString(v.StartID))
		equal(t, "number", said.Number, v.Number)
		equal(t, "adverts", fmt.Sprint(adverts), fmt.Sprint(v.Adverts))
		equal(t, "removals", fmt.Sprint(removals), fmt.Sprint(v.Removals))
		equal(t, "digest", [32]byte(said.Digest), [32]byte(v.Digest))
		return nil
	})
}

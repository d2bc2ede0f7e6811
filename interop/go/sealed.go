package socp

// The bytes of the protocol: what is signed, hashed and encrypted. Nothing here knows of a connection.

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

const maxStatement = 67584

// Who identifies a user; a server's name is only a label.
type Who struct{ Name, Home string }

// Key is what one key statement says.
type Key struct {
	Number            uint64
	Public            *rsa.PublicKey
	Fingerprint, Hash [32]byte
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)
	idForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	pss      = &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
	// What stands before the raw key in the SubjectPublicKeyInfo of an Ed25519 key.
	ed25519Prefix = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}
)

// labelled is what is signed or hashed: a label, a zero byte, and the bytes as they came.
func labelled(label string, parts ...[]byte) []byte {
	return append([]byte(label+"\x00"), bytes.Join(parts, nil)...)
}

// Sign signs an encoded statement: RSA-PSS, SHA-256, salt of 32 bytes.
func Sign(key *rsa.PrivateKey, label string, statement []byte) []byte {
	hash := sha256.Sum256(labelled(label, statement))
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, hash[:], pss)
	if err != nil {
		panic(err) // Dial has checked the key
	}
	return signature
}

func verify(key *rsa.PublicKey, label string, statement, signature []byte) error {
	hash := sha256.Sum256(labelled(label, statement))
	return rsa.VerifyPSS(key, crypto.SHA256, hash[:], signature, pss)
}

// encode makes the bytes of a new statement or header. Those of others are never encoded again.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // only for text that is not UTF-8
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// newID makes a UUIDv7.
func newID(now time.Time) string {
	b := random(16)
	binary.BigEndian.PutUint64(b, uint64(now.UnixMilli())<<16|uint64(b[6]&0x0f|0x70)<<8|uint64(b[7]))
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// serverID is the id of a server with a raw Ed25519 key.
func serverID(raw []byte) string {
	id := sha256.Sum256(slices.Concat(ed25519Prefix, raw))
	return hex.EncodeToString(id[:])
}

// parseKey takes a public key in its one acceptable form: RSA of 4096 bits, exponent 65537.
func parseKey(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || key.N.BitLen() != 4096 || key.E != 65537 {
		return nil, errors.New("not an RSA key of 4096 bits")
	}
	if !bytes.Equal(encodeKey(key), der) {
		return nil, errors.New("a key in another form")
	}
	return key, nil
}

func encodeKey(key *rsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // every RSA key has a form
	}
	return der
}

func fingerprintOf(key *rsa.PublicKey) []byte {
	sum := sha256.Sum256(encodeKey(key))
	return sum[:]
}

// readKey checks a key statement of a user. `hash` is that of the entry it came in, if it did; `before` is what the
// statement before it says, if it is one of a chain.
func readKey(s *pb.SignedKeyStatement, who Who, hash []byte, before *Key) (*Key, error) {
	parts, size := labelled("socp.v1.SignedKeyStatement"), 0
	for _, part := range [][]byte{s.GetStatement(), s.GetSignature(), s.GetPreviousSignature()} {
		parts = append(binary.BigEndian.AppendUint32(parts, uint32(len(part))), part...)
		size += len(part)
	}
	var said pb.KeyStatement
	if size > 8192 || proto.Unmarshal(s.GetStatement(), &said) != nil {
		return nil, errors.New("it has not the form of a key statement")
	}
	public, err := parseKey(said.PublicKey)
	if err != nil {
		return nil, err
	}
	key := &Key{said.Number, public, sha256.Sum256(said.PublicKey), sha256.Sum256(parts)}
	previousHash, previousSignature := 32, 512
	if said.Number == 1 {
		previousHash, previousSignature = 0, 0
	}
	switch {
	case said.User != who.Name || said.HomeId != who.Home:
		return nil, errors.New("the key statement is of another user")
	case said.Number == 0 || len(said.PreviousSha256) != previousHash || len(s.PreviousSignature) != previousSignature:
		return nil, errors.New("the key statement has a wrong number")
	case hash != nil && !bytes.Equal(hash, key.Hash[:]):
		return nil, errors.New("the key statement is not the one that the entry names")
	case verify(public, "socp.v1.KeyStatement", s.Statement, s.Signature) != nil:
		return nil, errors.New("the key statement's signature is wrong")
	case before != nil && (said.Number != before.Number+1 || !bytes.Equal(said.PreviousSha256, before.Hash[:]) ||
		verify(before.Public, "socp.v1.KeyStatement", s.Statement, s.PreviousSignature) != nil):
		return nil, errors.New("the key statement does not follow the one before it")
	}
	return key, nil
}

// readChain checks all key statements of a user, from the first to the last, which is returned. It must pass the
// pinned key, if there is one.
func readChain(chain []*pb.SignedKeyStatement, who Who, pin *Key) (*Key, error) {
	var last *Key
	passed := pin == nil
	for i, s := range chain {
		next, err := readKey(s, who, nil, last)
		if err != nil || i == 0 && next.Number != 1 {
			return nil, errors.Join(errors.New("the chain is broken"), err)
		}
		last, passed = next, passed || next.Number == pin.Number && next.Fingerprint == pin.Fingerprint
	}
	if last == nil || !passed {
		return nil, fmt.Errorf("KEY CHANGED: no chain leads from the pinned key of %s to the new one", who.Name)
	}
	return last, nil
}

// checkServer checks the proof of the pinned server's identity; `proven` is the hash of the key in the certificate of
// the connection that it came over.
func checkServer(info *pb.GetServerInfoResponse, pinned string, proven [32]byte) error {
	var said pb.CertificateStatement
	raw, ok := bytes.CutPrefix(info.IdentityKey, ed25519Prefix)
	major, _, _ := strings.Cut(info.ProtocolVersion, ".")
	switch {
	case !ok || len(raw) != 32 || serverID(raw) != pinned || info.ServerId != pinned:
		return errors.New("another identity")
	case !ed25519.Verify(raw, labelled("socp.v1.CertificateStatement", info.CertificateStatement), info.CertificateSignature):
		return errors.New("its signature is wrong")
	case proto.Unmarshal(info.CertificateStatement, &said) != nil || said.ServerId != pinned || !bytes.Equal(said.CertificateKeySha256, proven[:]):
		return errors.New("the certificate is not its own")
	case major != "1":
		return fmt.Errorf("it speaks version %q", info.ProtocolVersion)
	}
	return nil
}

// checkOutcome finds what was signed about the statement with a hash, which was sent to a user of `home`. Handed over, stored
// and rejected are the word of that home; queued and expired are that of the `own` one, which has no other.
func checkOutcome(s *pb.SignedOutcome, home, own string, hash [32]byte) (*pb.Outcome, error) {
	var said pb.OutcomeStatement
	signer := serverID(s.GetHomeKey())
	switch {
	case len(s.GetHomeKey()) != 32 || signer != home && signer != own:
		return nil, errors.New("the outcome is another home's")
	case !ed25519.Verify(s.HomeKey, labelled("socp.v1.OutcomeStatement", s.Statement), s.Signature):
		return nil, errors.New("the outcome's signature is wrong")
	case proto.Unmarshal(s.Statement, &said) != nil || said.HomeId != signer:
		return nil, errors.New("the outcome names another home")
	}
	for _, outcome := range said.Outcomes {
		if !bytes.Equal(outcome.StatementSha256, hash[:]) {
			continue
		}
		speaker := ""
		switch outcome.Kind {
		case pb.OutcomeKind_OUTCOME_KIND_HANDED_OVER, pb.OutcomeKind_OUTCOME_KIND_STORED, pb.OutcomeKind_OUTCOME_KIND_REJECTED:
			speaker = home
		case pb.OutcomeKind_OUTCOME_KIND_QUEUED, pb.OutcomeKind_OUTCOME_KIND_EXPIRED:
			speaker = own
		}
		if signer != speaker {
			return nil, errors.New("the outcome is of no known kind, or not for this home to say")
		}
		return outcome, nil
	}
	return nil, errors.New("the outcome is of another message")
}

// checkSettled reads what became of a message that was queued. `sent` is the hash of what was sent, where it is known.
func checkSettled(r *pb.ReceivedOutcome, own string, sent *[32]byte) (*pb.Outcome, error) {
	var said pb.OutcomeStatement
	if proto.Unmarshal(r.GetOutcome().GetStatement(), &said) != nil || len(said.Outcomes) != 1 || len(said.Outcomes[0].StatementSha256) != 32 {
		return nil, errors.New("it has not the form of an outcome")
	}
	hash := [32]byte(said.Outcomes[0].StatementSha256)
	if sent != nil {
		hash = *sent
	}
	outcome, err := checkOutcome(r.Outcome, r.RecipientHomeId, own, hash)
	if err == nil && outcome.Kind == pb.OutcomeKind_OUTCOME_KIND_QUEUED {
		err = errors.New("still queued")
	}
	return outcome, err
}

// gcm is AES-256-GCM, with the commitment to its key: "GCM alone does not commit to its key".
func gcm(key []byte) (aead cipher.AEAD, commitment []byte) {
	block, err := aes.NewCipher(key)
	if err == nil {
		aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // callers have 32 bytes
	}
	sum := sha256.Sum256(labelled("socp.v1.KeyCommitment", key))
	return aead, sum[:]
}

// encrypt gives a new nonce, the ciphertext with the header as additional data, and the commitment.
func encrypt(key, header []byte, text string) (nonce, ciphertext, commitment []byte) {
	aead, commitment := gcm(key)
	nonce = random(12)
	return nonce, aead.Seal(nil, nonce, []byte(text), header), commitment
}

// decrypt opens a ciphertext with the header as it was received.
func decrypt(key, header, nonce, ciphertext, commitment []byte) (string, error) {
	aead, ours := gcm(key)
	if !bytes.Equal(ours, commitment) {
		return "", errors.New("the key is not the one committed to")
	}
	text, err := aead.Open(nil, nonce, ciphertext, header)
	if err == nil && !utf8.Valid(text) {
		err = errors.New("the text is not UTF-8")
	}
	return string(text), err
}

// sealPart encrypts what a message brings beside its text: a manifest or a receipt.
func sealPart(key, header []byte, label string, part proto.Message) (nonce, ciphertext []byte) {
	aead, _ := gcm(key)
	nonce = random(12)
	return nonce, aead.Seal(nil, nonce, encode(part), labelled(label, header))
}

// openReceipt gives nil without an error for a message that is no receipt.
func openReceipt(key []byte, s *pb.MessageStatement) (*pb.Receipt, error) {
	if len(s.ReceiptNonce) == 0 && len(s.ReceiptCiphertext) == 0 {
		return nil, nil
	}
	if len(s.ReceiptNonce) != 12 || len(s.FileNonce) != 0 || len(s.FileCiphertext) != 0 {
		return nil, errors.New("it has not the form of a receipt")
	}
	aead, _ := gcm(key)
	plain, err := aead.Open(nil, s.ReceiptNonce, s.ReceiptCiphertext, labelled("socp.v1.Receipt", s.Header))
	if err != nil {
		return nil, err
	}
	var r pb.Receipt
	isKnown := proto.Unmarshal(plain, &r) == nil && (r.Kind == pb.ReceiptKind_RECEIPT_KIND_DELIVERED || r.Kind == pb.ReceiptKind_RECEIPT_KIND_READ)
	isNoID := func(id string) bool { return !uuidForm.MatchString(id) }
	if !isKnown || len(r.MessageIds) == 0 || len(r.MessageIds) > 100 || slices.ContainsFunc(r.MessageIds, isNoID) {
		return nil, errors.New("it has not the form of a receipt")
	}
	return &r, nil
}

// wrap encrypts a key to a user: RSA-OAEP, SHA-256, no label.
func wrap(public *rsa.PublicKey, key []byte) []byte {
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, key, nil)
	if err != nil {
		panic(err) // 32 bytes fit any acceptable key
	}
	return wrapped
}

func unwrap(private *rsa.PrivateKey, wrapped []byte) ([]byte, error) {
	key, err := rsa.DecryptOAEP(sha256.New(), nil, private, wrapped, nil)
	if err != nil || len(key) != 32 {
		return nil, errors.New("the wrapped key does not open")
	}
	return key, nil
}

// postKey derives the key of one post from the channel key.
func postKey(channelKey, salt []byte, messageID string) []byte {
	key, err := hkdf.Key(sha256.New, channelKey, salt, string(labelled("socp.v1.PostKey", []byte(messageID))), 32)
	if err != nil {
		panic(err) // only for lengths that are forbidden
	}
	return key
}

// Digest is that of a set of entries, to be compared with the server's. It is a sum, so that a program with a large
// view may add and subtract entries as they change; this one adds all anew.
func Digest(entries map[Who]*pb.DirectoryEntry) [32]byte {
	var sums [1024]uint16
	be := binary.BigEndian
	for _, e := range entries {
		home, _ := hex.DecodeString(e.ServerId)
		b := be.AppendUint64(labelled("socp.v1.DigestEntry", home), e.Epoch)
		for _, text := range []string{e.Name, e.DisplayName, e.Status} {
			b = append(be.AppendUint64(b, uint64(len(text))), text...)
		}
		b = be.AppendUint64(append(b, e.KeyStatementSha256...), e.OnlineSince)
		seed := sha256.Sum256(be.AppendUint64(b, uint64(e.Sessions)))
		for i := range 64 {
			block := sha256.Sum256(be.AppendUint32(seed[:], uint32(i)))
			for j := range 16 {
				sums[16*i+j] += binary.LittleEndian.Uint16(block[2*j:])
			}
		}
	}
	out := labelled("socp.v1.Digest")
	for _, sum := range sums {
		out = binary.LittleEndian.AppendUint16(out, sum)
	}
	return sha256.Sum256(out)
}

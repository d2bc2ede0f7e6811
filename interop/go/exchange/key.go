package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// loadKey reads a private key, or makes one, and keeps it if a file is named.
func loadKey(file string) (*rsa.PrivateKey, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err == nil {
			block, _ := pem.Decode(text)
			if block == nil {
				return nil, fmt.Errorf("`%s` holds no key", file)
			}
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			key, ok := parsed.(*rsa.PrivateKey)
			if err != nil || !ok {
				return nil, fmt.Errorf("`%s` holds no RSA key in PKCS#8", file)
			}
			return key, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil || file == "" {
		return key, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
